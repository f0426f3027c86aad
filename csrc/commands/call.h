/*
 * call.h: the execution of one request.
 *
 * Contract of oort_execute (dispatch.c)
 *  - OORT_CALL_DONE: the reply, which may be an error, is in the output.
 *  - OORT_CALL_COLD: a record must be read from disk first.  The caller calls oort_fetch(store,
 *    oort_session_cold(session)) on a thread that may block, and then makes the same call again.
 *    Nothing was changed or appended.
 *  - OORT_CALL_PYTHON: Python executes the command.  The command exists, its arity is right, and
 *    the connection may run it.  Nothing was appended.
 *  - OORT_CALL_LATER: the command writes, and writes_wait is set.  Nothing was appended.
 *  - OORT_CALL_FOREIGN: a line of an HTTP request.  The connection must be closed without a reply.
 *  - If memory for the output is short, call->output->failed is set and stays set.
 *
 * Contract of a handler
 *  - The command's keys are in call->keys, locked, in the order of the request.  Their sizes and
 *    the arity have been checked.
 *  - The handler appends the whole reply, or calls call_error(), and returns OORT_OK (OORT_MISSING
 *    counts as OORT_OK).  Every other status means that nothing was changed.  Dispatch then removes
 *    everything that the handler has appended and counted, and appends an error for the status.
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
    int32_t command; /* the result of command_resolve(argv, argc) */
    uint32_t flags;  /* oort_connection_flag; without OORT_CONN_AUTHENTICATED
                      * only OORT_CMD_NO_AUTH commands run */
    struct oort_output *output;
    uint64_t value_cap;        /* proto-max-bulk-len */
    const oort_key *first_key; /* the first key, if the caller has initialised it; or NULL */
    uint8_t *countdown; /* by command: a call at 0 is timed, then every 256th after it; or NULL */
    uint8_t database;
    uint8_t protocol; /* 2 or 3 */
    bool writes_wait; /* the device cannot keep up, so commands that write run later */
    /* for the handler */
    const oort_key *keys;
    uint32_t key_count;
    /* out */
    int64_t begun_ns; /* monotonic start of the handler, if the call is timed; or 0 */
    bool failed;      /* the command ran and replied with an error */
    bool rejected;    /* the command did not run: unknown, wrong arity, or not authenticated */
    /* in and out */
    uint64_t hits, misses; /* added up: key lookups of read commands */
};

int32_t oort_execute(struct oort_call *call);

typedef int32_t (*oort_handler)(struct oort_call *call);

#endif
