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
    /* The name without its container, for the hash: see name_words(). */
    uint64_t name_head, name_tail;
    uint8_t short_name; /* where it begins in info.name */
    uint8_t name_size;
    bool name_is_exact; /* the two words say all of it */
};

#define COMMAND_UNKNOWN (-1)

/* The position of the command, or subcommand, that a request names; argc is at least 1.  Below 0:
 * COMMAND_UNKNOWN, or what command_unknown_container() takes apart. */
int32_t command_resolve(const oort_bytes *argv, uint32_t argc);
/* For such an answer: the container whose subcommand is unknown, or NULL. */
const struct command_row *command_unknown_container(int32_t answer);

/* position: one that command_resolve has given. */
const struct command_row *command_row_at(int32_t position);

/* The place in argv of the first key of a command that C executes, for prefetching; 0: the command
 * has none, is unknown, or is Python's. */
uint32_t command_native_key(int32_t position);

/* How many keys a request of this command has.  Its arity has been checked. */
uint32_t command_key_count(const struct command_row *row, uint32_t argc);

#endif
