/*
 * store.c: the public calls of a store.  They check the caller's arguments and pass them on to the
 * store behind the session.
 */
#include "store/store.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"

int32_t oort_store_close(oort_store *store, oort_error *error)
{
    return store->ops->close(store, error);
}

void oort_store_get_metrics(oort_store *store, uint64_t *out)
{
    struct store_reading reading;
    for (uint32_t i = 0; i < STORE_PLACES; i++)
        reading.place[i] = atomic_load_explicit(&store->metrics.place[i], memory_order_relaxed);
    store->ops->measure(store, &reading);
    memcpy(out, reading.place, sizeof reading.place);
}

int32_t oort_store_get_histogram(oort_store *store, uint32_t place, oort_histogram *out)
{
    if (place >= STORE_HISTOGRAMS)
        return OORT_ERR_ARGUMENT;
    histogram_read(&store->histograms.place[place], out);
    return OORT_OK;
}

/* A counter that any thread may write is written by atomic additions only, so that setting it to 0
 * cannot lose one that follows. */
void oort_store_reset_metrics(oort_store *store)
{
    const oort_metric *metric;
    for (uint32_t i = 0; (metric = oort_metric_at(OORT_METRICS_STORE, i)) != NULL; i++)
        for (uint32_t value = 0; metric->resets != 0 && value < metric->values; value++)
            atomic_store_explicit(&store->metrics.place[metric->place + value], 0,
                                  memory_order_relaxed);
    for (uint32_t i = 0; i < STORE_HISTOGRAMS; i++)
        histogram_reset(&store->histograms.place[i]);
}

int32_t oort_store_set_fsync(oort_store *store, int32_t fsync)
{
    if (fsync < OORT_FSYNC_NO || fsync > OORT_FSYNC_ALWAYS)
        return OORT_ERR_ARGUMENT;
    return store->ops->set_fsync(store, fsync);
}

int32_t oort_store_sync(oort_store *store, oort_error *error)
{
    return store->ops->sync(store, error);
}

int32_t oort_store_compact(oort_store *store, uint32_t dead_percent, oort_error *error)
{
    return store->ops->compact(store, dead_percent, error);
}

int32_t oort_store_next_event(oort_store *store, oort_event *out)
{
    return store->ops->next_event(store, out);
}

int oort_store_event_fd(oort_store *store)
{
    return store->ops->event_fd(store);
}

void oort_store_request_sync(oort_store *store, uint64_t ticket)
{
    store->ops->request_sync(store, ticket);
}

int32_t oort_store_sync_here(oort_store *store, int eventfd)
{
    return store->ops->sync_here(store, eventfd);
}

uint32_t oort_store_gather_ms(oort_store *store)
{
    return store->ops->gather_ms(store);
}

uint64_t oort_store_synced(oort_store *store)
{
    return store->ops->synced(store);
}

int32_t oort_store_watch_sync(oort_store *store, int eventfd)
{
    return store->ops->watch_sync(store, eventfd);
}

void oort_store_unwatch_sync(oort_store *store, int eventfd)
{
    store->ops->unwatch_sync(store, eventfd);
}

int32_t oort_store_behind(oort_store *store)
{
    return store->ops->behind(store);
}

int32_t oort_fetch(oort_store *store, oort_cold cold)
{
    return store->ops->fetch(store, cold);
}

void oort_unpin(oort_store *store, oort_value *value)
{
    if (value->pin != NULL)
        store->ops->unpin(store, value);
}

int32_t oort_store_flush(oort_session *session, int32_t database)
{
    if (database < -1 || database >= OORT_DATABASES)
        return OORT_ERR_ARGUMENT;
    return session->store->ops->flush(session, database);
}

oort_session *oort_session_open(oort_store *store, oort_error *error)
{
    return store->ops->session_open(store, error);
}

void oort_session_close(oort_session *session)
{
    session->store->ops->session_close(session);
}

void oort_session_set_clock(oort_session *session, int64_t now_us)
{
    if (now_us == 0)
        now_us = clock_wall_us();
    session->now_us = now_us;
}

int64_t oort_session_now_ms(const oort_session *session)
{
    return session->now_us / 1000;
}

const char *oort_session_error(const oort_session *session)
{
    return session->error.text;
}

oort_cold oort_session_cold(const oort_session *session)
{
    return session->cold;
}

void oort_prefetch(oort_session *session, const oort_key *keys, uint32_t count)
{
    session->store->ops->prefetch(session, keys, count);
}

int32_t oort_lock(oort_session *session, const oort_key *keys, uint32_t count)
{
    return session->store->ops->lock(session, keys, count);
}

void oort_unlock(oort_session *session)
{
    session->store->ops->unlock(session);
}

int32_t oort_read(oort_session *session, const oort_key *key, oort_value *out)
{
    return session->store->ops->read(session, key, out);
}

int32_t oort_look(oort_session *session, const oort_key *key, oort_value *out)
{
    return session->store->ops->look(session, key, out);
}

int32_t oort_write(oort_session *session, const oort_key *key, const oort_bytes *parts,
                   uint32_t part_count, int64_t expiry_ms)
{
    if (key->size > OORT_KEY_CAP)
        return oort_fail(&session->error, OORT_ERR_TOO_BIG, 0, "key is longer than %d bytes",
                         OORT_KEY_CAP);
    return session->store->ops->write(session, key, parts, part_count, expiry_ms);
}

int32_t oort_remove(oort_session *session, const oort_key *key)
{
    return session->store->ops->remove(session, key);
}

int32_t oort_set_expiry(oort_session *session, const oort_key *key, int64_t expiry_ms)
{
    return session->store->ops->set_expiry(session, key, expiry_ms);
}

int32_t oort_batch_begin(oort_session *session, uint32_t count, uint64_t bytes)
{
    return session->store->ops->batch_begin(session, count, bytes);
}

int32_t oort_batch_commit(oort_session *session)
{
    return session->store->ops->batch_commit(session);
}

void oort_batch_abort(oort_session *session)
{
    session->store->ops->batch_abort(session);
}

void oort_pin(oort_session *session, oort_value *value)
{
    session->store->ops->pin(session, value);
}

uint64_t oort_session_ticket(oort_session *session)
{
    return session->store->ops->ticket(session);
}

int32_t oort_store_scan(oort_session *session, uint8_t database, oort_scan *scan)
{
    if (database >= OORT_DATABASES)
        return OORT_ERR_ARGUMENT;
    return session->store->ops->scan(session, database, scan);
}

int32_t oort_store_random_key(oort_session *session, uint8_t database, uint8_t *buffer,
                              uint32_t *size)
{
    if (database >= OORT_DATABASES)
        return OORT_ERR_ARGUMENT;
    return session->store->ops->random_key(session, database, buffer, size);
}
