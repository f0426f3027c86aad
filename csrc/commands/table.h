/*
 * table.h: the rows of the command table, and the search for a row by the words of a request.
 *
 * generate.py makes the rows from table/, in the order of their positions.  A position is valid in
 * one build only and must never be stored on disk.
 */
#ifndef OORT_COMMANDS_TABLE_H
#define OORT_COMMANDS_TABLE_H

#include "commands/call.h"

struct command_row {
    oort_command_info info;
    oort_handler handler; /* NULL: Python executes the command */
};

extern const struct command_row command_rows[];

#define COMMAND_UNKNOWN (-1)

/* The position of the request's command or subcommand; argc is at least 1.  COMMAND_UNKNOWN: there
 * is no such command.  Below: the command has no such subcommand; see command_unknown_container().
 * *first_key: the index in argv of a native command's first key, which may be beyond argc; 0: the
 * command has no keys, is unknown, or is not native. */
int32_t command_resolve(const oort_bytes *argv, uint32_t argc, uint32_t *first_key);
/* For a result below COMMAND_UNKNOWN: the command whose subcommand is unknown.  Otherwise NULL. */
const struct command_row *command_unknown_container(int32_t answer);

/* position: a result of command_resolve that is not below 0. */
static inline const struct command_row *command_row_at(int32_t position)
{
    return &command_rows[position];
}

/* The number of keys in a request of this command.  The arity has been checked. */
static inline uint32_t command_key_count(const struct command_row *row, uint32_t argc)
{
    const oort_command_info *info = &row->info;
    if (info->first_key == 0) {
        return 0;
    }
    if (info->first_key == info->last_key) {
        return 1;
    }
    int64_t last = info->last_key > 0 ? info->last_key : (int64_t)argc + info->last_key;
    return (uint32_t)((last - info->first_key) / info->key_step) + 1;
}

#endif
