/*
 * call.h: one request on its way from its words to its reply.
 *
 * Contract of oort_execute (dispatch.c)
 *  - OORT_CALL_DONE: the reply (an error is a reply too) is in the output.
 *  - OORT_CALL_COLD: a record must be read from disk first: oort_fetch(store,
 *    oort_session_cold(session)) on a thread that may block, then the same call again.  Nothing was
 *    changed, nothing was appended.
 *  - OORT_CALL_PYTHON: the command is known, its arity is right and its caller may run it, but Python
 *    executes it.  Nothing was appended.
 *  - OORT_CALL_LATER: a write while writes_wait is set.  Nothing was appended.
 *  - OORT_CALL_FOREIGN: a line of an HTTP request.  The connection must be closed without a reply.
 *  - The output failing (memory) is sticky in call->output->failed.
 *
 * Contract of a handler
 *  - The command's keys are in call->keys, locked, in the order of the request; their sizes and the
 *    arity have been checked.
 *  - The handler appends the whole reply, or calls call_error(), and returns OORT_OK (OORT_MISSING
 *    counts as OORT_OK).  Every other status means that nothing was changed: dispatch takes
 *    back what was appended and counted since the handler was called, and answers for the status.
 *  - The handler returns with no batch open.
 */
#ifndef OORT_COMMANDS_CALL_H
#define OORT_COMMANDS_CALL_H

#include "oort.h"
#include "protocol/resp.h"

enum oort_call_result {
    OORT_CALL_DONE = 0,
    OORT_CALL_COLD = 1,
    OORT_CALL_PYTHON = 2,
    OORT_CALL_LATER = 3,
    OORT_CALL_FOREIGN = 4
};

struct oort_call {
    /* in */
    oort_session *session;
    const oort_bytes *argv;
    uint32_t argc;   /* at least 1 */
    int32_t command; /* what command_resolve says of argv */
    uint32_t flags;  /* oort_connection_flag: without OORT_CONN_AUTHENTICATED
                      * only OORT_CMD_NO_AUTH commands run */
    struct oort_output *output;
    uint64_t value_cap;        /* proto-max-bulk-len */
    const oort_key *first_key; /* the first key, if the caller has worked it out; or NULL */
    uint8_t *countdown; /* by command: at 0 the call is timed, then the 256th after it; or NULL */
    uint8_t database;
    uint8_t protocol; /* 2 or 3 */
    bool writes_wait; /* the device cannot keep up: a command that writes runs later */
    /* for the handler */
    const oort_key *keys;
    uint32_t key_count;
    /* out */
    int64_t begun_ns; /* monotonic, when the handler was called, if the call is timed; or 0 */
    bool failed;      /* the command ran and replied with an error */
    bool rejected;    /* it did not run: unknown, arity, authentication */
    /* counted up */
    uint64_t hits, misses; /* of key lookups by read commands; zeroed by the caller */
};

int32_t oort_execute(struct oort_call *call);

typedef int32_t (*oort_handler)(struct oort_call *call);

#endif
