/*
 * background.c: the persistent store's threads, and the disk watermark.
 *
 *   sync         see commit.c
 *   maintenance  seals full segments, prepares the next one, checks the disk watermark,
 *                sweeps expired keys (expiry.c), advances the residency clock
 *   compaction   one segment at a time (compaction.c)
 *
 * No thread holds a stripe for longer than the change of one key.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"

#define TICK_MS 100
#define RESIDENCY_SECONDS 2
#define BEHIND_BYTES (UINT64_C(512) * 1024 * 1024)

void valuestore_check_disk(struct valuestore *store)
{
    struct statvfs status;
    if (statvfs(store->log.directory, &status) != 0)
        return;
    uint64_t unit = status.f_frsize ? status.f_frsize : status.f_bsize;
    uint64_t bytes = (uint64_t)status.f_bavail * unit;
    atomic_store(&store->free_bytes, bytes);
    /* Several threads check the disk.  The thread that changes the state posts the event. */
    bool was = atomic_load(&store->read_only);
    if (bytes < store->free_bytes_low) {
        if (was || atomic_exchange(&store->read_only, true))
            return;
        events_post(&store->events, EVENT_ERROR, OORT_EVENT_FULL, 0,
                    "%s has %" PRIu64 " bytes free, below the watermark of %" PRIu64
                    ": writes are refused until space is freed",
                    store->log.directory, bytes, store->free_bytes_low);
    } else if (was && bytes > store->free_bytes_low + store->free_bytes_low / 10) {
        if (!atomic_exchange(&store->read_only, false))
            return;
        events_post(&store->events, EVENT_NOTICE, OORT_EVENT_ROOM, 0,
                    "%s has %" PRIu64 " bytes free again: writes are accepted",
                    store->log.directory, bytes);
    }
}

static void report(struct valuestore *store, const oort_error *error, bool *reported)
{
    if (error->code == OORT_ERR_IO) {
        vlog_fail(&store->log, error);
    } else if (!*reported) {
        events_post(&store->events, EVENT_WARNING, OORT_EVENT_OTHER, 0, "%s", error->text);
        *reported = true;
    }
}

void valuestore_wake_maintenance(struct valuestore *store)
{
    if (store->threads_running)
        (void)pthread_cond_broadcast(&store->thread_wake);
}

static void *maintenance_main(void *context)
{
    struct valuestore *store = context;
    oort_error error;
    uint32_t resume = 0;
    int64_t disk_checked = 0;
    bool reported = false;
    (void)pthread_mutex_lock(&store->thread_mutex);
    while (!store->stopping) {
        struct timespec until = clock_deadline(TICK_MS);
        (void)pthread_cond_timedwait(&store->thread_wake, &store->thread_mutex, &until);
        if (store->stopping)
            break;
        (void)pthread_mutex_unlock(&store->thread_mutex);
        int64_t now = clock_monotonic_ms();
        atomic_store(&store->log.tick, (uint32_t)(now / 1000 / RESIDENCY_SECONDS) + 1);
        if (atomic_load(&store->log.failed) == 0) {
            int32_t result = vlog_seal_pending(&store->log, &error);
            if (result >= 0)
                result = vlog_prepare(&store->log, &error);
            if (result < 0)
                report(store, &error, &reported);
            else
                reported = false;
        } else {
            valuestore_tell_watchers(store, -1); /* no sync will end any more: wake the waiters */
        }
        vlog_reap(&store->log);
        if (now - disk_checked >= 1000) {
            valuestore_check_disk(store);
            disk_checked = now;
        }
        /* A store that has failed is not behind: it refuses writes. */
        atomic_store(&store->behind, atomic_load(&store->fsync) != OORT_FSYNC_NO &&
                                         atomic_load(&store->log.failed) == 0 &&
                                         vlog_unsynced(&store->log) > BEHIND_BYTES);
        valuestore_sweep_expired(store, &resume);
        (void)pthread_mutex_lock(&store->thread_mutex);
    }
    (void)pthread_mutex_unlock(&store->thread_mutex);
    return NULL;
}

static void *compaction_main(void *context)
{
    struct valuestore *store = context;
    oort_error error;
    bool reported = false;
    int64_t pause_ms = 1000;
    (void)pthread_mutex_lock(&store->thread_mutex);
    while (!store->stopping) {
        struct timespec until = clock_deadline(pause_ms);
        (void)pthread_cond_timedwait(&store->thread_wake, &store->thread_mutex, &until);
        if (store->stopping)
            break;
        (void)pthread_mutex_unlock(&store->thread_mutex);
        int32_t done = atomic_load(&store->log.failed) != 0
                           ? 0
                           : valuestore_compact_one(store, store->compaction_dead_percent, true,
                                                    &error);
        if (done < 0)
            report(store, &error, &reported);
        else if (done > 0)
            reported = false;
        pause_ms = done > 0 ? 10 : 1000;
        (void)pthread_mutex_lock(&store->thread_mutex);
    }
    (void)pthread_mutex_unlock(&store->thread_mutex);
    return NULL;
}

int32_t valuestore_start(struct valuestore *store, oort_error *error)
{
    int failed = 0;
    store->compaction_session = valuestore_session(store, error);
    if (store->compaction_session == NULL)
        return error->code;
    value_session_of(store->compaction_session)->writer.compacts = true;
    if (!store->background)
        return OORT_OK;
    atomic_store(&store->log.tick, (uint32_t)(clock_monotonic_ms() / 1000 / RESIDENCY_SECONDS) + 1);
    atomic_store(&store->log.seal_behind, true);
    store->threads_running = true;
    static void *(*const mains[STORE_THREADS])(void *) = {valuestore_sync_main, maintenance_main,
                                                          compaction_main};
    while (store->thread_count < STORE_THREADS && failed == 0) {
        failed = pthread_create(&store->threads[store->thread_count], NULL,
                                mains[store->thread_count], store);
        if (failed == 0)
            store->thread_count++;
    }
    if (failed == 0)
        return OORT_OK;
    valuestore_stop(store);
    return oort_fail(error, OORT_ERR_NOMEM, failed, "cannot start the store's threads: %s",
                     strerror(failed));
}

void valuestore_stop(struct valuestore *store)
{
    if (store->threads_running) {
        (void)pthread_mutex_lock(&store->sync_mutex);
        (void)pthread_mutex_lock(&store->thread_mutex);
        store->stopping = true;
        (void)pthread_cond_broadcast(&store->sync_wake);
        (void)pthread_cond_broadcast(&store->thread_wake);
        (void)pthread_mutex_unlock(&store->thread_mutex);
        (void)pthread_mutex_unlock(&store->sync_mutex);
        while (store->thread_count > 0)
            (void)pthread_join(store->threads[--store->thread_count], NULL);
        store->threads_running = false;
    }
    atomic_store(&store->log.seal_behind, false);
    if (store->compaction_session != NULL)
        oort_session_close(store->compaction_session);
    store->compaction_session = NULL;
}
