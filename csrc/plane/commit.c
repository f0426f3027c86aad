/*
 * commit.c: a worker's side of group commit: when to ask for a sync, and which replies a sync lets
 * go.
 *
 * While the device is fast, the worker executes what has arrived and then asks for a sync at once.
 * Clients that come back during a sync are served by the next one, so two halves of the clients
 * take turns.  On a slow device that costs more, because each half waits for the other half's sync
 * as well.  Then the worker waits for the clients that the last sync let go, for half a sync's time
 * at most, so that all of them share the next sync.  That is useless if clients do not come back
 * at once, so the worker stops waiting, for longer each time that it waited for nothing.
 *
 * A connection that waits executes nothing, so one sync covers a bounded number of commands.
 * COMMIT_ROUNDS bounds how long other clients that only read can put a sync off.
 */
#include "plane/plane.h"

#define COMMIT_ROUNDS 8u
#define GATHER_MISSES_MAX 6u

/* Replies whose records are durable may go.  If the store has failed, none of the waiting replies
 * may. */
void worker_take_sync(struct worker *worker)
{
    struct commit *commit = &worker->commit;
    struct conn *conn = worker->parked[PARK_SYNC].first;
    uint64_t waiting = worker->parked[PARK_SYNC].count;
    bool released = false;

    if (conn == NULL)
        return;
    uint64_t synced = oort_store_synced(worker->store);
    while (conn != NULL) {
        struct conn *next = conn->park_next;
        if (synced == UINT64_MAX) {
            output_rollback(&conn->output, conn->held);
            reply_error(&conn->output,
                        "MISCONF the log could not be synced to disk; see the server log");
            conn->closing = true;
        }
        if (conn->ticket <= synced) {
            worker_unpark(worker, conn);
            /* Send before more is executed, because new replies would hold these back again. */
            conn->writable = !conn->want_writable || conn->writable;
            worker_ready(worker, conn);
            released = true;
        }
        conn = next;
    }
    if (released)
        commit->expected = waiting;
}

static void ask(struct worker *worker)
{
    struct commit *commit = &worker->commit;

    if (oort_store_sync_here(worker->store, worker->wake_fd) != 0) {
        worker_take_sync(worker);
    } else {
        oort_store_request_sync(worker->store, commit->ticket);
        commit->asked = commit->ticket;
    }
    commit->ticket = 0;
    commit->rounds = 0;
    commit->gather_from_ms = 0;
    commit->wait_ms = 0;
}

/* Should the worker wait for other clients?  Then wait_ms is how long the next round may sleep. */
static bool gathers(struct worker *worker, uint32_t patience_ms, bool silent)
{
    struct commit *commit = &worker->commit;

    if (oort_store_synced(worker->store) < commit->asked) {
        commit->wait_ms = -1; /* a sync is under way; its end wakes the worker */
        return true;
    }
    if (commit->gather_from_ms == 0)
        commit->gather_from_ms = worker->now_ms;
    /* Do not make everyone wait for a single slow client. */
    if (worker->parked[PARK_SYNC].count * 8 >= commit->expected * 7) {
        commit->misses = 0;
        commit->wait_ms = 0;
        return false;
    }
    uint64_t waited_ms = worker->now_ms - commit->gather_from_ms;
    if (waited_ms < patience_ms && !(silent && commit->wait_ms > 0)) {
        commit->wait_ms = (int)(patience_ms - (uint32_t)waited_ms);
        return true;
    }
    commit->skips = 1u << commit->misses;
    if (commit->misses < GATHER_MISSES_MAX)
        commit->misses++;
    commit->wait_ms = 0;
    return false;
}

void worker_commit(struct worker *worker, bool silent, bool may_wait)
{
    struct commit *commit = &worker->commit;
    uint32_t patience_ms = may_wait ? oort_store_gather_ms(worker->store) : 0;

    if (patience_ms > 0 && commit->skips == 0) {
        if (gathers(worker, patience_ms, silent))
            return;
    } else {
        commit->wait_ms = 0;
    }
    if ((!silent || worker->ready_first != NULL) && ++commit->rounds < COMMIT_ROUNDS)
        return;
    if (commit->skips > 0)
        commit->skips--;
    ask(worker);
}
