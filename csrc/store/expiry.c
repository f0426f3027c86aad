/*
 * expiry.c: the sweep, which takes expired keys that nobody reads out of the index.
 *
 * A segment is swept when its earliest expiry has passed, but at most once a second.  A sealed
 * segment is swept by its table of contents, an active segment by its records.  The sweep holds one
 * stripe at a time, for the change of one key.
 */
#include "store/valuestore.h"

#include <sys/mman.h>

#include "base/clock.h"

#define SWEEP_BUDGET_MS 20

/* The value at location has expired.  Marks its entry as dead. */
static void expire_at(struct valuestore *store, uint64_t hash, uint8_t database, uint64_t location)
{
    index_cursor cursor;
    index_entry entry;
    uint32_t stripe = stripe_of(hash);
    valuestore_lock_stripe(store, stripe);
    index_seek(store->index, hash, database, &cursor);
    while (index_next(store->index, &cursor, &entry)) {
        if (index_location(entry) != location || stamp_is_dead(index_stamp(entry)))
            continue;
        valuestore_account(store, location, -1);
        index_replace(store->index, &cursor, location, index_stamp(entry) | 1);
        valuestore_uncount(store, database);
        metric_add(&store->base.metrics.expired_keys, 1);
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
                      segment_location(segment->number, toc_offset(entry)));
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
            break; /* damage: a read of the record reports it */
        if (record->expiry_ms != 0 && record->expiry_ms > now_ms)
            segment_note_expiry(segment, record->expiry_ms);
        else if (record->expiry_ms != 0)
            expire_at(store, oort_ring_hash(record_key(record), record->key_size, record->database),
                      record->database & 15, segment_location(segment->number, offset));
        offset += size;
    }
}

void valuestore_sweep_expired(struct valuestore *store, uint32_t *resume)
{
    int64_t now_ms = clock_wall_ms();
    int64_t begin = clock_monotonic_ms();
    for (uint32_t i = 0; i < SEGMENT_NUMBERS; i++) {
        uint32_t number = (*resume + i) % SEGMENT_NUMBERS;
        if (atomic_load_explicit(&store->log.table[number], memory_order_relaxed) == NULL)
            continue;
        (void)pthread_mutex_lock(&store->log.mutex);
        struct segment *segment = atomic_load(&store->log.table[number]);
        bool due = segment != NULL && atomic_load(&segment->min_expiry_ms) <= now_ms &&
                   begin - segment->swept_ms >= 1000 &&
                   atomic_load(&segment->state) != SEGMENT_CLOSING;
        if (due)
            segment_pin(segment);
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
        segment_unpin(segment);
        if (end - begin >= SWEEP_BUDGET_MS) {
            *resume = (number + 1) % SEGMENT_NUMBERS;
            return;
        }
    }
    *resume = 0;
}
