/*
 * background.c: what the persistent store does beside its callers.
 *
 *   sync         group commit: one fdatasync round covers every run of commands that
 *                ended before it began; once a second under everysec.  A caller that
 *                waits may run the round itself while the device is quick: the sync
 *                thread is for slow ones, which must not hold up a data plane
 *   maintenance  sealing full segments, preparing the next one, the disk watermark,
 *                expiry of keys that nobody reads, the residency clock
 *   compaction   one segment at a time
 *
 * No thread holds a stripe for longer than one key's change.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"

#define TICK_MS 100
#define RESIDENCY_SECONDS 2
#define SWEEP_BUDGET_MS 20
#define QUICK_SYNC_NS 1000000
#define GATHER_SYNC_NS 500000 /* from here on sharing a sync saves more than waiting costs */
#define GATHER_MS_MAX 10u
#define BEHIND_BYTES (UINT64_C(512) * 1024 * 1024)

/* ---- group commit ------------------------------------------------------------------- */

/* except: the caller's own watcher, which needs no telling; -1: none. */
static void notify(struct valuestore *store, int except)
{
    uint64_t one = 1;
    (void)pthread_mutex_lock(&store->sync_mutex);
    for (uint32_t i = 0; i < store->watcher_count; i++)
        if (store->watchers[i] != except)
            (void)!write(store->watchers[i], &one, sizeof one);
    (void)pthread_cond_broadcast(&store->sync_finished);
    (void)pthread_mutex_unlock(&store->sync_mutex);
}

/* Under sync_round_mutex. */
static void sync_round(struct valuestore *store, int except)
{
    oort_error error;
    int64_t began_ns = clock_monotonic_ns();
    uint64_t round = atomic_fetch_add(&store->sync_started, 1) + 1;
    if (vlog_sync(&store->log, &error) == OORT_OK)
        atomic_store(&store->sync_done, round);
    int64_t took_ns = clock_monotonic_ns() - began_ns, mean_ns = atomic_load(&store->sync_ns);
    /* One slow round is believed at once, quick ones by and by. */
    atomic_store(&store->sync_ns, took_ns > mean_ns ? took_ns : mean_ns - (mean_ns - took_ns) / 4);
    notify(store, except);
}

static void run_round(struct valuestore *store)
{
    (void)pthread_mutex_lock(&store->sync_round_mutex);
    sync_round(store, -1);
    (void)pthread_mutex_unlock(&store->sync_round_mutex);
}

static void *sync_main(void *context)
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

/* The first round that starts from now on, so that it covers what the caller has appended: to change the
 * counter, if by nothing, is to be before or after that round in all that it reads. */
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

/* ---- expiry -------------------------------------------------------------------------- */

/* The entry of this hash that points at location, if its time has come: forget it. */
static void expire_at(struct valuestore *store, uint64_t hash, uint8_t database, uint64_t location)
{
    index_cursor cursor;
    index_entry entry;
    uint32_t stripe = stripe_of(hash);
    valuestore_lock_stripe(store, stripe);
    index_seek(store->index, hash, database, &cursor);
    while (index_next(store->index, &cursor, &entry)) {
        if (index_location(entry) != location)
            continue;
        valuestore_account(store, location, -1);
        index_erase(store->index, &cursor);
        (void)atomic_fetch_sub(&store->checkpoint->keys[database], 1);
        (void)atomic_fetch_add(&store->expired_keys, 1);
        break;
    }
    valuestore_unlock_stripe(store, stripe);
}

static void sweep_sealed(struct valuestore *store, struct segment *segment, int64_t now_ms)
{
    uint64_t mapped = 0;
    const toc_header *toc = toc_map(store->log.directory_fd, segment->sequence, segment->capacity,
                                    !segment->toc_verified, &mapped);
    if (toc == NULL)
        return;
    segment->toc_verified = true;
    for (uint64_t i = 0; i < toc->count; i++) {
        const toc_entry *entry = &toc_entries(toc)[i];
        uint32_t kind = toc_kind(entry);
        if (entry->expiry_ms == 0 || kind == RECORD_FLUSH ||
            entry->expiry_ms <= segment->swept_until_ms)
            continue;
        if (entry->expiry_ms > now_ms)
            segment_note_expiry(segment, entry->expiry_ms);
        else
            expire_at(store, entry->hash, toc_database(entry),
                      segment_location(segment->slot, toc_offset(entry)));
    }
    segment->swept_until_ms = now_ms;
    (void)munmap((void *)(uintptr_t)toc, mapped);
}

static void sweep_active(struct valuestore *store, struct segment *segment, int64_t now_ms)
{
    uint64_t tail = atomic_load_explicit(&segment->tail, memory_order_acquire);
    for (uint64_t offset = SEGMENT_HEADER_BYTES; offset < tail;) {
        uint64_t size = record_extent(segment->map, offset, tail);
        const record_header *record = segment_record(segment, offset);
        if (size == 0)
            break; /* damage: whoever reads the record reports it */
        if (record->expiry_ms != 0 && record->expiry_ms > now_ms)
            segment_note_expiry(segment, record->expiry_ms);
        else if (record->expiry_ms != 0)
            expire_at(store,
                      oort_ring_hash(record_key(record), record->key_size, record->database),
                      record->database & 15, segment_location(segment->slot, offset));
        offset += size;
    }
}

/* Sweep segments whose next expiry has come, oldest sweep first come first served, within the budget. */
static void sweep_expired(struct valuestore *store, uint32_t *resume)
{
    int64_t now_ms = clock_wall_ms();
    int64_t begin = clock_monotonic_ms();
    for (uint32_t i = 0; i < SEGMENT_SLOTS; i++) {
        uint32_t slot = (*resume + i) % SEGMENT_SLOTS;
        if (atomic_load_explicit(&store->log.table[slot], memory_order_relaxed) == NULL)
            continue;
        (void)pthread_mutex_lock(&store->log.mutex);
        struct segment *segment = atomic_load(&store->log.table[slot]);
        bool due = segment != NULL && atomic_load(&segment->min_expiry_ms) <= now_ms &&
                   begin - segment->swept_ms >= 1000 &&
                   atomic_load(&segment->state) != SEGMENT_CLOSING;
        if (due)
            (void)atomic_fetch_add(&segment->pins, 1);
        (void)pthread_mutex_unlock(&store->log.mutex);
        if (!due)
            continue;
        atomic_store(&segment->min_expiry_ms, INT64_MAX);
        if (atomic_load(&segment->state) == SEGMENT_SEALED)
            sweep_sealed(store, segment, now_ms);
        else
            sweep_active(store, segment, now_ms);
        int64_t end = clock_monotonic_ms();
        segment->swept_ms = end;
        (void)atomic_fetch_sub(&segment->pins, 1);
        if (end - begin >= SWEEP_BUDGET_MS) {
            *resume = (slot + 1) % SEGMENT_SLOTS;
            return;
        }
    }
    *resume = 0;
}

/* ---- maintenance ---------------------------------------------------------------------- */

void valuestore_check_disk(struct valuestore *store)
{
    struct statvfs status;
    if (statvfs(store->log.directory, &status) != 0)
        return;
    uint64_t unit = status.f_frsize ? status.f_frsize : status.f_bsize;
    uint64_t bytes = (uint64_t)status.f_bavail * unit;
    atomic_store(&store->free_bytes, bytes);
    /* Several threads look; the one that changes it tells. */
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
                    "%s has %" PRIu64
                    " bytes free again: writes are accepted", store->log.directory, bytes);
    }
}

static void report(struct valuestore *store, const oort_error *error, bool *reported)
{
    if (error->code == OORT_ERR_IO) {
        vlog_fail(&store->log, error);
    } else if (!*reported) {
        events_post(&store->events, EVENT_WARNING, OORT_EVENT_OTHER, 0,
                    "%s", error->text);
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
            notify(store, -1); /* whoever waits for a sync waits in vain */
        }
        vlog_reap(&store->log);
        if (now - disk_checked >= 1000) {
            valuestore_check_disk(store);
            disk_checked = now;
        }
        /* A store that failed is not behind: it refuses. */
        atomic_store(&store->behind, atomic_load(&store->fsync) != OORT_FSYNC_NO &&
                                         atomic_load(&store->log.failed) == 0 &&
                                         vlog_unsynced(&store->log) > BEHIND_BYTES);
        sweep_expired(store, &resume);
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
    ((struct value_session *)(void *)store->compaction_session)->writer.compacts = true;
    if (!store->background)
        return OORT_OK;
    atomic_store(&store->log.tick, (uint32_t)(clock_monotonic_ms() / 1000 / RESIDENCY_SECONDS) + 1);
    atomic_store(&store->log.seal_behind, true);
    store->threads_running = true;
    static void *(*const mains[STORE_THREADS])(void *) = {sync_main, maintenance_main,
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
