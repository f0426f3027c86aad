/*
 * find.c: finds the index entry of a key and the record of the entry.
 *
 * The index holds no keys, so each candidate's key is compared in its record.  The caller holds the
 * stripe of the key.  With FIND_HOT a record that is not in memory is not touched, and the result
 * is OORT_COLD.  FIND_BLOCKING waits for the disk.
 */
#include "store/valuestore.h"

#include <inttypes.h>
#include <string.h>

void valuestore_damaged(struct valuestore *store, const struct segment *segment, uint64_t offset,
                        uint64_t size)
{
    uint64_t location = segment_location(segment->number, offset);
    if (atomic_exchange(&store->reported[location % REPORTED_MAX], location) == location)
        return;
    metric_add(&store->base.metrics.damaged_records, 1);
    metric_add(&store->base.metrics.damaged_bytes, size);
    events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, segment->sequence,
                "segment %016" PRIx64 ".log: the record at offset %" PRIu64
                " is damaged; requests for its key fail until the key is written again or restored",
                segment->sequence, offset);
}

/* Whether the entry's record belongs to the key: 1 yes, 0 no, OORT_COLD, or OORT_ERR_DAMAGED if the
 * record is damaged and its key is unknown. */
static int32_t same_key(struct value_session *session, const oort_key *key, enum find_mode mode,
                        struct found *at)
{
    struct valuestore *store = session->store;
    uint64_t location = index_location(at->entry);
    at->segment = vlog_segment(&store->log, location);
    at->offset = location_offset(location);
    at->record = NULL;
    if (at->segment == NULL)
        return OORT_ERR_DAMAGED;
    uint64_t tail = atomic_load_explicit(&at->segment->tail, memory_order_acquire);
    uint64_t needed = sizeof(record_header) + key->size;
    if (at->offset > tail || tail - at->offset < sizeof(record_header))
        return OORT_ERR_DAMAGED;
    if (tail - at->offset < needed)
        needed = tail - at->offset;
    uint32_t tick = atomic_load_explicit(&store->log.tick, memory_order_relaxed);
    if (mode == FIND_HOT && !segment_resident(at->segment, at->offset, needed, tick)) {
        session->base.cold = (oort_cold){.location = location, .size = needed};
        return OORT_COLD;
    }
    if (record_extent(at->segment->map, at->offset, tail) == 0)
        return OORT_ERR_DAMAGED;
    at->record = segment_record(at->segment, at->offset);
    if (at->record->key_size == key->size && at->record->database == key->database &&
        memcmp(record_key(at->record), key->data, key->size) == 0)
        return 1;
    /* 38 hash bits agree but the keys differ.  This is a rare collision, or damage. */
    if (record_check(at->segment->map, at->offset, tail, at->segment->seed) == 0)
        return OORT_ERR_DAMAGED;
    return 0;
}

static int32_t find(struct value_session *session, const oort_key *key, enum find_mode mode,
                    bool dead_too, struct found *out)
{
    struct valuestore *store = session->store;
    struct found damaged = {.damaged = false};
    uint64_t flushed = atomic_load_explicit(&store->checkpoint->flush_stamp[key->database],
                                            memory_order_relaxed);
    valuestore_check_locked(session, key->hash);
    index_seek(store->index, key->hash, key->database, &out->cursor);
    while (index_next(store->index, &out->cursor, &out->entry)) {
        bool dead = stamp_is_dead(index_stamp(out->entry));
        if (index_stamp(out->entry) < flushed || (dead && !dead_too))
            continue;
        int32_t same = same_key(session, key, mode, out);
        if (same == 1) {
            out->damaged = false;
            out->dead = dead;
            return OORT_OK;
        }
        if (same == OORT_COLD)
            return OORT_COLD;
        if (same == OORT_ERR_DAMAGED && !dead) {
            damaged = *out;
            damaged.dead = false;
            damaged.damaged = true;
        }
    }
    if (!damaged.damaged)
        return OORT_MISSING;
    *out = damaged;
    return OORT_OK;
}

int32_t valuestore_find(struct value_session *session, const oort_key *key, enum find_mode mode,
                        struct found *out)
{
    return find(session, key, mode, false, out);
}

int32_t valuestore_find_any(struct value_session *session, const oort_key *key, enum find_mode mode,
                            struct found *out)
{
    return find(session, key, mode, true, out);
}

const record_header *valuestore_target(struct valuestore *store, const record_header *record,
                                       uint64_t *location)
{
    record_target target;
    if (!record_points(record, &target))
        return NULL;
    struct segment *segment = vlog_segment(&store->log, target.location);
    if (segment == NULL || segment->sequence != target.sequence)
        return NULL;
    *location = target.location;
    uint64_t offset = location_offset(target.location);
    if (record_extent(segment->map, offset, atomic_load(&segment->tail)) == 0)
        return NULL;
    /* If a segment was lost, the value of another key may lie at its locations. */
    const record_header *value = segment_record(segment, offset);
    bool same = value->kind == RECORD_SET && value->database == record->database &&
                value->key_size == record->key_size &&
                memcmp(record_key(value), record_key(record), record->key_size) == 0;
    return same ? value : NULL;
}

void valuestore_account(struct valuestore *store, uint64_t location, int64_t sign)
{
    struct segment *segment = vlog_segment(&store->log, location);
    uint64_t offset = location_offset(location);
    if (segment == NULL)
        return;
    uint64_t size = record_extent(segment->map, offset, atomic_load(&segment->tail));
    if (size == 0)
        return;
    (void)atomic_fetch_add_explicit(&store->checkpoint->live_bytes[segment->number],
                                    sign * (int64_t)size, memory_order_relaxed);
    const record_header *record = segment_record(segment, offset);
    if (record->kind == RECORD_EXPIRY) {
        uint64_t target = 0;
        if (valuestore_target(store, record, &target) != NULL)
            valuestore_account(store, target, sign);
    }
}

void valuestore_prefetch_entries(struct valuestore *store, const toc_entry *entries, uint64_t count)
{
    for (int step = 1; step <= 2; step++)
        for (uint64_t i = 0; i < count && i < INDEX_PREFETCH_BATCH; i++)
            index_prefetch(store->index, entries[i].hash, step);
}

/* Bucket, line, record: each step needs the result of the step before.  A step is therefore done
 * for all keys before the next step begins. */
void valuestore_prefetch(oort_session *base, const oort_key *keys, uint32_t count)
{
    struct valuestore *store = value_session_of(base)->store;
    for (int step = 1; step <= 2; step++)
        for (uint32_t i = 0; i < count; i++)
            index_prefetch(store->index, keys[i].hash, step);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t location = index_peek(store->index, keys[i].hash, keys[i].database);
        if (location != 0)
            vlog_prefetch(&store->log, location);
    }
}
