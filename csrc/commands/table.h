/*
 * table.h: the command table: rows, and finding one by the words of a request.
 *
 * The rows come from table/ (generate.py), in the order of their positions.  A position is valid
 * in one build only: nothing may be stored that depends on it.
 */
#ifndef OORT_COMMANDS_TABLE_H
#define OORT_COMMANDS_TABLE_H

#include "commands/call.h"

struct command_row {
    oort_command_info info;
    oort_handler handler; /* NULL: Python executes the command */
};

#define COMMAND_UNKNOWN (-1)

/* The position of the command, or subcommand, that a request names; argc is at least 1.  Below 0:
 * COMMAND_UNKNOWN, or what command_unknown_container() takes apart.  *first_key: the place in argv of
 * the first key of a command that C executes; 0: the command has no keys, is unknown, or is
 * executed by Python.  The place may be beyond argc. */
int32_t command_resolve(const oort_bytes *argv, uint32_t argc, uint32_t *first_key);
/* For such an answer: the container whose subcommand is unknown, or NULL. */
const struct command_row *command_unknown_container(int32_t answer);

/* position: one that command_resolve has given. */
const struct command_row *command_row_at(int32_t position);

/* How many keys a request of this command has.  Its arity has been checked. */
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
