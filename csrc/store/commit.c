/*
 * commit.c: group commit: sync rounds, the tickets that wait for them, and their watchers.
 *
 * One round of fdatasync covers every run of commands that ended before the round began.  With
 * everysec there is one round a second.  A caller that waits may run the round itself while the
 * device is quick. The sync thread is for slow devices, which must not delay a data plane.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <unistd.h>

#include "base/clock.h"

#define QUICK_SYNC_NS 1000000
#define GATHER_SYNC_NS 500000 /* from here on sharing a sync saves more than waiting costs */
#define GATHER_MS_MAX 10u

void valuestore_tell_watchers(struct valuestore *store, int except)
{
    uint64_t one = 1;
    (void)pthread_mutex_lock(&store->sync_mutex);
    for (uint32_t i = 0; i < store->watcher_count; i++)
        if (store->watchers[i] != except)
            (void)!write(store->watchers[i], &one, sizeof one);
    (void)pthread_cond_broadcast(&store->sync_finished);
    (void)pthread_mutex_unlock(&store->sync_mutex);
}

/* The caller holds sync_round_mutex. */
static void sync_round(struct valuestore *store, int except)
{
    oort_error error;
    int64_t began_ns = clock_monotonic_ns();
    uint64_t round = atomic_fetch_add(&store->sync_started, 1) + 1;
    if (vlog_sync(&store->log, &error) == OORT_OK)
        atomic_store(&store->sync_done, round);
    int64_t took_ns = clock_monotonic_ns() - began_ns, mean_ns = atomic_load(&store->sync_ns);
    /* The mean follows a slower round at once, and faster rounds gradually. */
    atomic_store(&store->sync_ns, took_ns > mean_ns ? took_ns : mean_ns - (mean_ns - took_ns) / 4);
    valuestore_tell_watchers(store, except);
}

static void run_round(struct valuestore *store)
{
    (void)pthread_mutex_lock(&store->sync_round_mutex);
    sync_round(store, -1);
    (void)pthread_mutex_unlock(&store->sync_round_mutex);
}

void *valuestore_sync_main(void *context)
{
    struct valuestore *store = context;
    (void)pthread_mutex_lock(&store->sync_mutex);
    while (!store->stopping) {
        bool wanted = atomic_load(&store->sync_wanted) > atomic_load(&store->sync_done) &&
                      atomic_load(&store->log.failed) == 0;
        if (!wanted) {
            struct timespec until = clock_deadline(1000);
            bool timed_out = pthread_cond_timedwait(&store->sync_wake, &store->sync_mutex,
                                                    &until) == ETIMEDOUT;
            if (!timed_out || atomic_load(&store->fsync) == OORT_FSYNC_NO)
                continue;
        }
        (void)pthread_mutex_unlock(&store->sync_mutex);
        run_round(store);
        (void)pthread_mutex_lock(&store->sync_mutex);
    }
    (void)pthread_mutex_unlock(&store->sync_mutex);
    return NULL;
}

/* The first round that starts from now on, so it covers everything that the caller has appended.
 * The counter is read by an addition of 0: a change, unlike a load, is ordered before or after the
 * start of that round. */
static uint64_t next_round(struct valuestore *store)
{
    return atomic_fetch_add(&store->sync_started, 0) + 1;
}

void valuestore_note_removal(struct valuestore *store)
{
    uint64_t round = next_round(store), seen = atomic_load(&store->removal_round);
    while (seen < round && !atomic_compare_exchange_weak(&store->removal_round, &seen, round))
        ;
}

void valuestore_saw_absence(struct value_session *session)
{
    struct valuestore *store = session->store;
    if (atomic_load(&store->sync_done) < atomic_load(&store->removal_round))
        session->read_unsynced = true;
}

void valuestore_request_sync(oort_store *base, uint64_t ticket)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    if (atomic_load(&store->sync_wanted) >= ticket)
        return;
    (void)pthread_mutex_lock(&store->sync_mutex);
    if (atomic_load(&store->sync_wanted) < ticket)
        atomic_store(&store->sync_wanted, ticket);
    (void)pthread_cond_signal(&store->sync_wake);
    (void)pthread_mutex_unlock(&store->sync_mutex);
}

int32_t valuestore_sync_here(oort_store *base, int eventfd)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    if (atomic_load_explicit(&store->sync_ns, memory_order_relaxed) > QUICK_SYNC_NS ||
        pthread_mutex_trylock(&store->sync_round_mutex) != 0)
        return 0;
    sync_round(store, eventfd);
    (void)pthread_mutex_unlock(&store->sync_round_mutex);
    return 1;
}

uint32_t valuestore_gather_ms(oort_store *base)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    int64_t took_ns = atomic_load_explicit(&store->sync_ns, memory_order_relaxed);
    if (took_ns < GATHER_SYNC_NS)
        return 0;
    uint32_t half_ms = (uint32_t)(took_ns / 2000000);
    return half_ms == 0 ? 1 : half_ms < GATHER_MS_MAX ? half_ms : GATHER_MS_MAX;
}

uint64_t valuestore_ticket(oort_session *base)
{
    struct value_session *session = (struct value_session *)(void *)base;
    struct valuestore *store = session->store;
    bool waits = session->wrote || session->read_unsynced;
    session->wrote = false;
    session->read_unsynced = false;
    if (!waits || atomic_load_explicit(&store->fsync, memory_order_relaxed) != OORT_FSYNC_ALWAYS)
        return 0;
    if (!store->threads_running) {
        run_round(store);
        return atomic_load(&store->log.failed) == 0 ? 0 : next_round(store);
    }
    return next_round(store);
}

uint64_t valuestore_synced(oort_store *base)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    if (atomic_load(&store->log.failed) != 0)
        return UINT64_MAX;
    return atomic_load(&store->sync_done);
}

int32_t valuestore_sync(oort_store *base, oort_error *error)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    if (!store->threads_running)
        return vlog_sync(&store->log, error);
    uint64_t ticket = next_round(store);
    valuestore_request_sync(base, ticket);
    (void)pthread_mutex_lock(&store->sync_mutex);
    while (atomic_load(&store->sync_done) < ticket && atomic_load(&store->log.failed) == 0)
        (void)pthread_cond_wait(&store->sync_finished, &store->sync_mutex);
    (void)pthread_mutex_unlock(&store->sync_mutex);
    if (atomic_load(&store->log.failed) != 0)
        return oort_fail(error, OORT_ERR_FAILED, 0,
                         "the log in %s could not be synced; see the server log",
                         store->log.directory);
    return OORT_OK;
}

int32_t valuestore_watch_sync(oort_store *base, int eventfd)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    int32_t result = OORT_ERR_ARGUMENT;
    (void)pthread_mutex_lock(&store->sync_mutex);
    if (store->watcher_count < SYNC_WATCHERS) {
        store->watchers[store->watcher_count++] = eventfd;
        result = OORT_OK;
    }
    (void)pthread_mutex_unlock(&store->sync_mutex);
    return result;
}

void valuestore_unwatch_sync(oort_store *base, int eventfd)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    (void)pthread_mutex_lock(&store->sync_mutex);
    for (uint32_t i = 0; i < store->watcher_count; i++)
        if (store->watchers[i] == eventfd)
            store->watchers[i--] = store->watchers[--store->watcher_count];
    (void)pthread_mutex_unlock(&store->sync_mutex);
}

int32_t valuestore_set_fsync(oort_store *base, int32_t fsync)
{
    struct valuestore *store = (struct valuestore *)(void *)base;
    atomic_store(&store->fsync, fsync);
    atomic_store(&store->log.zeroed, fsync == OORT_FSYNC_ALWAYS);
    return OORT_OK;
}
