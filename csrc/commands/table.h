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
    /* The name without its container, as the hash needs it: see name_words(). */
    uint64_t name_head, name_tail;
    uint8_t short_name; /* the offset of this name in info.name */
    uint8_t name_size;
    bool name_is_exact; /* the two words and the size identify the name */
};

#define COMMAND_UNKNOWN (-1)

/* The position of the request's command or subcommand; argc is at least 1.  COMMAND_UNKNOWN: there
 * is no such command.  Below: the command has no such subcommand; see
 * command_unknown_container(). */
int32_t command_resolve(const oort_bytes *argv, uint32_t argc);
/* For a result below COMMAND_UNKNOWN: the command whose subcommand is unknown.  Otherwise NULL. */
const struct command_row *command_unknown_container(int32_t answer);

/* position: a result of command_resolve that is not below 0. */
const struct command_row *command_row_at(int32_t position);

/* The index in argv of a native command's first key, for prefetching.  0: the command has no keys,
 * is unknown, or is not native. */
uint32_t command_native_key(int32_t position);

/* The number of keys in a request of this command.  The arity has been checked. */
uint32_t command_key_count(const struct command_row *row, uint32_t argc);

#endif
