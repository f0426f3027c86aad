/*
 * commands.h: from a parsed request to its reply.
 *
 * The table is data (commands.def), compiled into oort_command_info rows. Hot commands
 * have a handler here; the others are Python's.
 *
 * Contract of oort_execute
 *  - OORT_CALL_DONE: the reply (an error is one too) is in the output.
 *  - OORT_CALL_COLD: the disk must be read first: oort_fetch(store, oort_session_cold(session)) on
 *    a thread that may block, then the same call again. Nothing was changed, nothing was appended.
 *  - OORT_CALL_NOT_HOT: known, its arity is right and its caller may run it, but Python executes
 *    it. Nothing was appended. Subcommands are not looked at.
 *  - OORT_CALL_FOREIGN: a line of an HTTP request. The connection must be closed without a reply.
 *  - The output failing (memory) is sticky in call->output->failed.
 */
#ifndef OORT_COMMANDS_H
#define OORT_COMMANDS_H

#include "oort.h"
#include "protocol/resp.h"

enum oort_call_result {
    OORT_CALL_DONE = 0,
    OORT_CALL_COLD = 1,
    OORT_CALL_NOT_HOT = 2,
    OORT_CALL_FOREIGN = 3
};

/* Values above this many bytes are sent from where they lie, not copied. */
#define OORT_PIN_BYTES 65536u

struct oort_call {
    /* in */
    oort_session *session;
    const oort_bytes *argv;
    uint32_t argc;  /* at least 1 */
    uint32_t flags; /* oort_connection_flag: without OORT_CONN_AUTHENTICATED
                                 * only OORT_CMD_NO_AUTH commands run */
    struct oort_output *output;
    uint64_t value_cap;        /* proto-max-bulk-len */
    const oort_key *first_key; /* argv[1] as a key, if the caller has worked it out; or NULL */
    uint8_t *countdown; /* by command: at 0 the call is timed, then the 256th after it; or NULL */
    uint8_t database;
    uint8_t protocol; /* 2 or 3 */
    /* out */
    int64_t begun_ns; /* monotonic, when the handler was called, if the call is timed; or 0 */
    bool failed;      /* the command ran and replied with an error */
    bool rejected;    /* it did not run: unknown, arity, authentication */
    int32_t command;  /* position in the table, -1: unknown */
    /* counted up */
    uint64_t hits, misses; /* of key lookups by read commands; zeroed by the caller */
};

int32_t oort_execute(struct oort_call *call);

/* The key positions of a request of this command, for prefetching: argv index of the first key,
 * or 0. */
uint32_t oort_command_first_key(int32_t command);

typedef int32_t (*oort_handler)(struct oort_call *call);

#endif
