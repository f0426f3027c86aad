/*
 * session.c: sessions, their stripe locks, and the table of the store's operations.
 *
 * A session is used by one thread at a time.  It holds stripes between lock and unlock, and always
 * takes them in ascending order, so sessions cannot deadlock.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- locks ------------------------------------------------------------------ */

void valuestore_lock_stripe(struct valuestore *store, uint32_t stripe)
{
    (void)pthread_mutex_lock(&store->stripes[stripe].mutex);
}

void valuestore_unlock_stripe(struct valuestore *store, uint32_t stripe)
{
    (void)pthread_mutex_unlock(&store->stripes[stripe].mutex);
}

static int32_t lock_keys(oort_session *base, const oort_key *keys, uint32_t count)
{
    struct value_session *session = value_session_of(base);
    OORT_ASSERT(session->locked_single == LOCKED_NONE, "a session locks once at a time");
    if (count == 1) {
        session->locked_single = (int32_t)stripe_of(keys[0].hash);
        valuestore_lock_stripe(session->store, (uint32_t)session->locked_single);
        return OORT_OK;
    }
    memset(session->locked, 0, sizeof session->locked);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t stripe = stripe_of(keys[i].hash);
        session->locked[stripe / 64] |= UINT64_C(1) << stripe % 64;
    }
    session->locked_single = LOCKED_SEVERAL;
    for (uint32_t word = 0; word < STRIPES / 64; word++)
        for (uint64_t bits = session->locked[word]; bits != 0; bits &= bits - 1)
            valuestore_lock_stripe(session->store, word * 64 + (uint32_t)__builtin_ctzll(bits));
    return OORT_OK;
}

static void unlock_keys(oort_session *base)
{
    struct value_session *session = value_session_of(base);
    OORT_ASSERT(!session->in_batch, "a batch ends before its keys are unlocked");
    if (session->locked_single >= 0) {
        valuestore_unlock_stripe(session->store, (uint32_t)session->locked_single);
    } else if (session->locked_single == LOCKED_SEVERAL) {
        for (uint32_t word = 0; word < STRIPES / 64; word++)
            for (uint64_t bits = session->locked[word]; bits != 0; bits &= bits - 1)
                valuestore_unlock_stripe(session->store,
                                         word * 64 + (uint32_t)__builtin_ctzll(bits));
    }
    session->locked_single = LOCKED_NONE;
}

/* ---- sessions ------------------------------------------------------------------- */

oort_session *valuestore_session(struct valuestore *store, oort_error *error)
{
    struct value_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        (void)oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory for a session");
        return NULL;
    }
    session->base.store = &store->base;
    session->store = store;
    session->locked_single = LOCKED_NONE;
    oort_session_set_clock(&session->base, 0);
    if (vlog_writer_open(&store->log, &session->writer, error) != OORT_OK) {
        free(session);
        return NULL;
    }
    return &session->base;
}

static oort_session *session_open(oort_store *base, oort_error *error)
{
    return valuestore_session(valuestore_of(base), error);
}

static void session_close(oort_session *base)
{
    struct value_session *session = value_session_of(base);
    OORT_ASSERT(session->locked_single == LOCKED_NONE, "a session that is closed holds no locks");
    vlog_writer_close(&session->writer);
    valuestore_wake_maintenance(session->store);
    free(session->batch);
    free(session->batch_parts);
    free(session);
}

const struct oort_store_ops valuestore_ops = {.name = "valuestore",
                                              .close = valuestore_close,
                                              .measure = valuestore_measure,
                                              .set_fsync = valuestore_set_fsync,
                                              .sync = valuestore_sync,
                                              .compact = valuestore_compact,
                                              .next_event = valuestore_next_event,
                                              .event_fd = valuestore_event_fd,
                                              .request_sync = valuestore_request_sync,
                                              .sync_here = valuestore_sync_here,
                                              .gather_ms = valuestore_gather_ms,
                                              .synced = valuestore_synced,
                                              .watch_sync = valuestore_watch_sync,
                                              .unwatch_sync = valuestore_unwatch_sync,
                                              .behind = valuestore_behind,
                                              .fetch = valuestore_fetch,
                                              .unpin = valuestore_unpin,
                                              .session_open = session_open,
                                              .session_close = session_close,
                                              .prefetch = valuestore_prefetch,
                                              .lock = lock_keys,
                                              .unlock = unlock_keys,
                                              .read = valuestore_read,
                                              .look = valuestore_look,
                                              .write = valuestore_write,
                                              .remove = valuestore_remove,
                                              .set_expiry = valuestore_set_expiry,
                                              .batch_begin = valuestore_batch_begin,
                                              .batch_commit = valuestore_batch_commit,
                                              .batch_abort = valuestore_batch_abort,
                                              .pin = valuestore_pin,
                                              .ticket = valuestore_ticket,
                                              .flush = valuestore_flush,
                                              .scan = valuestore_scan,
                                              .random_key = valuestore_random_key};
