/*
 * keys.c: the persistent store's keys: finding, reading, writing,
 * removing.  Log first, index second, always; the index's mark moves
 * on (vlog_applied) while the key's stripe is still held, so at most one change a
 * writer is unknown to the index after a kill, and its key has no later one.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A value up to this size is written again to change its expiry; a larger one is pointed at. */
#define EXPIRY_REWRITE_BYTES 256u

static struct value_session *session_of(oort_session *session)
{
    return (struct value_session *)(void *)session;
}

static struct valuestore *store_of(oort_store *store)
{
    return (struct valuestore *)(void *)store;
}

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
    struct value_session *session = session_of(base);
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
    session->locked_single = -1;
    for (uint32_t word = 0; word < STRIPES / 64; word++)
        for (uint64_t bits = session->locked[word]; bits != 0; bits &= bits - 1)
            valuestore_lock_stripe(session->store, word * 64 + (uint32_t)__builtin_ctzll(bits));
    return OORT_OK;
}

static void unlock_keys(oort_session *base)
{
    struct value_session *session = session_of(base);
    if (session->locked_single >= 0) {
        valuestore_unlock_stripe(session->store, (uint32_t)session->locked_single);
    } else if (session->locked_single == -1) {
        for (uint32_t word = 0; word < STRIPES / 64; word++)
            for (uint64_t bits = session->locked[word]; bits != 0; bits &= bits - 1)
                valuestore_unlock_stripe(session->store,
                                         word * 64 + (uint32_t)__builtin_ctzll(bits));
    }
    session->locked_single = -2;
}

/* ---- finding ---------------------------------------------------------------- */

void valuestore_damaged(struct valuestore *store, const struct segment *segment, uint64_t offset,
                        uint64_t size)
{
    uint64_t location = segment_location(segment->number, offset);
    if (atomic_exchange(&store->reported[location % REPORTED_MAX], location) == location)
        return;
    (void)atomic_fetch_add(&store->damaged_records, 1);
    (void)atomic_fetch_add(&store->damaged_bytes, size);
    events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, segment->sequence,
                "segment %016" PRIx64 ".log: the record at offset %" PRIu64
                " is damaged; its key answers an error until it is written again or restored",
                segment->sequence, offset);
}

/* Is this key's record at the entry?  1 yes, 0 no, OORT_COLD, or OORT_ERR_DAMAGED: it cannot be told
 * and the record is damaged. */
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
    /* 38 bits of hash agree and the key does not: a rare collision, or damage. */
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
    /* Where a segment was lost, another key's value may have come to lie. */
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

/* ---- reading ----------------------------------------------------------------- */

static int32_t damaged_answer(struct value_session *session, const struct found *at)
{
    if (at->segment != NULL)
        valuestore_damaged(session->store, at->segment, at->offset,
                           at->record ? record_size(at->record->key_size, at->record->value_size)
                                      : sizeof(record_header));
    return oort_fail(&session->base.error, OORT_ERR_DAMAGED, 0,
                     "the record of this key is damaged; write it again or restore it");
}

/* May the record be touched, and is it whole? OORT_OK, OORT_COLD or OORT_ERR_DAMAGED.  Without its
 * value, a large one is believed by its header, which has been read already. */
static int32_t verify(struct value_session *session, struct segment *segment, uint64_t offset,
                      const record_header *record, bool with_value)
{
    struct valuestore *store = session->store;
    uint64_t size = record_size(record->key_size, record->value_size);
    uint64_t location = segment_location(segment->number, offset);
    uint32_t tick = atomic_load_explicit(&store->log.tick, memory_order_relaxed);
    if (!with_value && record->value_size > LARGE_VALUE && tick != 0)
        return OORT_OK;
    if (!segment_resident(segment, offset, size, tick)) {
        session->base.cold = (oort_cold){.location = location, .size = size};
        return OORT_COLD;
    }
    if (record->value_size > LARGE_VALUE && tick != 0) {
        uint8_t verdict = atomic_load(&segment->verdicts[offset / SEGMENT_EXTENT_BYTES]);
        if (verdict != VERDICT_NONE)
            return verdict == VERDICT_WHOLE ? OORT_OK : OORT_ERR_DAMAGED;
        session->base.cold = (oort_cold){.location = location, .size = size};
        return OORT_COLD;
    }
    return record->checksum == record_checksum(segment->seed, offset, record) ? OORT_OK
                                                                              : OORT_ERR_DAMAGED;
}

static int32_t fetch(oort_store *base, oort_cold cold)
{
    struct valuestore *store = store_of(base);
    /* The stripe is not known here: what keeps the segment is a pin, taken under the log's mutex,
     * which vlog_release needs as well. */
    (void)pthread_mutex_lock(&store->log.mutex);
    struct segment *segment = cold.location >> 40 == 0 ? vlog_segment(&store->log, cold.location)
                                                       : NULL;
    if (segment != NULL)
        (void)atomic_fetch_add(&segment->pins, 1);
    (void)pthread_mutex_unlock(&store->log.mutex);
    if (segment == NULL)
        return OORT_OK;
    uint64_t offset = location_offset(cold.location);
    int32_t result = segment_fetch(segment, offset, cold.size);
    if (result == OORT_OK && cold.size > LARGE_VALUE) {
        uint64_t whole = record_check(segment->map, offset, atomic_load(&segment->tail),
                                      segment->seed);
        atomic_store(&segment->verdicts[offset / SEGMENT_EXTENT_BYTES],
                     whole != 0 ? VERDICT_WHOLE : VERDICT_DAMAGED);
    }
    if (result == OORT_ERR_IO)
        events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, segment->sequence,
                    "segment %016" PRIx64 ".log: cannot read %" PRIu64 " bytes at offset %" PRIu64
                    "; check the disk",
                    segment->sequence, cold.size, offset);
    (void)atomic_fetch_sub(&segment->pins, 1);
    return result;
}

/* The value has expired.  Its record serves as a tombstone: the dead entry is the evidence by which
 * compaction removes older values of the key. */
static void expire(struct value_session *session, const oort_key *key, struct found *at)
{
    struct valuestore *store = session->store;
    uint64_t location = index_location(at->entry);
    valuestore_account(store, location, -1);
    index_replace(store->index, &at->cursor, location, index_stamp(at->entry) | 1);
    (void)atomic_fetch_sub(&store->checkpoint->keys[key->database], 1);
    (void)atomic_fetch_add_explicit(&store->expired_keys, 1, memory_order_relaxed);
}

static int32_t read_record(oort_session *base, const oort_key *key, oort_value *out,
                           bool with_value)
{
    struct value_session *session = session_of(base);
    struct valuestore *store = session->store;
    struct found at;
    int32_t result = valuestore_find(session, key, FIND_HOT, &at);
    if (result == OORT_MISSING)
        valuestore_saw_absence(session);
    if (result != OORT_OK)
        return result;
    if (at.damaged)
        return damaged_answer(session, &at);
    result = verify(session, at.segment, at.offset, at.record, with_value);
    if (result == OORT_ERR_DAMAGED)
        return damaged_answer(session, &at);
    if (result != OORT_OK)
        return result;
    if (expired(at.record, base->now_us / 1000)) {
        /* Believe the time only of a whole record. */
        result = verify(session, at.segment, at.offset, at.record, true);
        if (result == OORT_ERR_DAMAGED)
            return damaged_answer(session, &at);
        if (result != OORT_OK)
            return result;
        expire(session, key, &at);
        return OORT_MISSING;
    }
    const record_header *record = at.record;
    struct segment *segment = at.segment;
    uint64_t stored = record_size(record->key_size, record->value_size) + sizeof(index_entry);
    uint64_t offset = at.offset;
    if (record->kind == RECORD_EXPIRY) {
        uint64_t location = 0;
        record = valuestore_target(store, at.record, &location);
        if (record == NULL)
            return damaged_answer(session, &at);
        segment = vlog_segment(&store->log, location);
        offset = location_offset(location);
        result = verify(session, segment, offset, record, with_value);
        if (result == OORT_ERR_DAMAGED) {
            at.segment = segment;
            at.offset = offset;
            return damaged_answer(session, &at);
        }
        if (result != OORT_OK)
            return result;
        stored += record_size(record->key_size, record->value_size);
    }
    out->data = record_value(record);
    out->size = record->value_size;
    out->expiry_ms = at.record->expiry_ms;
    out->stamp = index_stamp(at.entry);
    out->stored_bytes = stored;
    out->origin = segment;
    out->pin = NULL;
    if (offset + record_size(record->key_size, record->value_size) >
            atomic_load_explicit(&segment->synced, memory_order_relaxed) ||
        at.offset >= atomic_load_explicit(&at.segment->synced, memory_order_relaxed))
        session->read_unsynced = true;
    return OORT_OK;
}

static int32_t read_key(oort_session *base, const oort_key *key, oort_value *out)
{
    return read_record(base, key, out, true);
}

static int32_t look_key(oort_session *base, const oort_key *key, oort_value *out)
{
    return read_record(base, key, out, false);
}

static void pin(oort_session *base, oort_value *value)
{
    struct segment *segment = value->origin;
    (void)base;
    (void)atomic_fetch_add(&segment->pins, 1);
    value->pin = segment;
}

static void unpin(oort_store *base, oort_value *value)
{
    struct segment *segment = value->pin;
    (void)base;
    value->pin = NULL;
    (void)atomic_fetch_sub(&segment->pins, 1);
}

void valuestore_prefetch_entries(struct valuestore *store, const toc_entry *entries, uint64_t count)
{
    for (int step = 1; step <= 2; step++)
        for (uint64_t i = 0; i < count && i < INDEX_PREFETCH_BATCH; i++)
            index_prefetch(store->index, entries[i].hash, step);
}

/* Bucket, line, record: each step needs what the one before has brought, so each is taken for all
 * keys before the next. */
static void prefetch(oort_session *base, const oort_key *keys, uint32_t count)
{
    struct valuestore *store = session_of(base)->store;
    for (int step = 1; step <= 2; step++)
        for (uint32_t i = 0; i < count; i++)
            index_prefetch(store->index, keys[i].hash, step);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t location = index_peek(store->index, keys[i].hash, keys[i].database);
        if (location != 0)
            vlog_prefetch(&store->log, location);
    }
}

/* ---- appending ----------------------------------------------------------------- */

uint64_t valuestore_stamp(struct value_session *session, bool deleting)
{
    _Atomic uint64_t *highest = &session->store->checkpoint->highest_stamp;
    uint64_t clock = (uint64_t)session->base.now_us << 8;
    uint64_t seen = atomic_load_explicit(highest, memory_order_relaxed);
    uint64_t next;
    do {
        next = (seen & ~UINT64_C(1)) + 2;
        if (clock > next)
            next = clock;
        next |= deleting ? 1 : 0;
    } while (!atomic_compare_exchange_weak_explicit(highest, &seen, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return next;
}

static void put_record(uint8_t *to, const record_header *shape, const uint8_t *key,
                       const oort_bytes *parts, uint32_t part_count)
{
    memcpy(to, shape, sizeof *shape);
    to += sizeof *shape;
    memcpy(to, key, shape->key_size);
    to += shape->key_size;
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].size != 0)
            memcpy(to, parts[i].data, parts[i].size);
        to += parts[i].size;
    }
}

void valuestore_write_record(struct segment *segment, uint64_t offset, const record_header *shape,
                             const uint8_t *key, const oort_bytes *parts, uint32_t part_count)
{
    record_header *record = (record_header *)(void *)(segment->map + offset);
    put_record(segment->map + offset, shape, key, parts, part_count);
    record->checksum = record_checksum(segment->seed, offset, record);
    if ((shape->kind == RECORD_SET || shape->kind == RECORD_EXPIRY) &&
        shape->stamp < atomic_load_explicit(&segment->min_stamp, memory_order_relaxed))
        atomic_store_explicit(&segment->min_stamp, shape->stamp, memory_order_relaxed);
}

int32_t valuestore_append(struct value_session *session, const record_header *shape,
                          const uint8_t *key, const oort_bytes *parts, uint32_t part_count,
                          struct segment **segment, uint64_t *offset)
{
    uint64_t size = record_size(shape->key_size, shape->value_size);
    int32_t result = vlog_reserve(&session->writer, size, false, segment, offset,
                                  &session->base.error);
    if (result != OORT_OK)
        return result;
    valuestore_write_record(*segment, *offset, shape, key, parts, part_count);
    vlog_append(&session->writer, *segment, size);
    segment_note_expiry(*segment, shape->expiry_ms);
    session->wrote = true;
    return OORT_OK;
}

/* ---- writing ------------------------------------------------------------------- */

static int32_t check_write(struct value_session *session, uint64_t value_size)
{
    struct valuestore *store = session->store;
    if (value_size > store->value_cap)
        return oort_fail(&session->base.error, OORT_ERR_TOO_BIG, 0,
                         "value is longer than %" PRIu64 " bytes", store->value_cap);
    if (atomic_load_explicit(&store->read_only, memory_order_relaxed))
        return oort_fail(&session->base.error, OORT_ERR_FULL, ENOSPC,
                         "the disk is below its free-space watermark; free space in %s",
                         store->log.directory);
    return OORT_OK;
}

int32_t valuestore_apply_set(struct value_session *session, const oort_key *key, struct found *at,
                             bool exists, struct segment *segment, uint64_t offset, uint64_t stamp)
{
    struct valuestore *store = session->store;
    uint64_t location = segment_location(segment->number, offset);
    valuestore_account(store, location, 1);
    if (exists) {
        if (!at->dead)
            valuestore_account(store, index_location(at->entry), -1);
        else
            (void)atomic_fetch_add_explicit(&store->checkpoint->keys[key->database], 1,
                                            memory_order_relaxed);
        index_replace(store->index, &at->cursor, location, stamp);
        return OORT_OK;
    }
    int32_t result = index_insert(store->index, key->hash, key->database, location, stamp);
    if (result != OORT_OK) {
        valuestore_account(store, location, -1);
        return oort_fail(&session->base.error, result, 0,
                         "the index of %s cannot grow; free disk space", store->log.directory);
    }
    (void)atomic_fetch_add_explicit(&store->checkpoint->keys[key->database], 1,
                                    memory_order_relaxed);
    return OORT_OK;
}

static int32_t append_tombstone(struct value_session *session, const oort_key *key)
{
    record_header shape = {.kind = RECORD_DELETE,
                           .database = key->database,
                           .key_size = key->size,
                           .stamp = valuestore_stamp(session, true)};
    struct segment *segment;
    uint64_t offset;
    int32_t result = valuestore_append(session, &shape, key->data, NULL, 0, &segment, &offset);
    if (result != OORT_OK)
        return result;
    /* Kept for compaction's choice; exact numbers come with the table of contents. */
    (void)atomic_fetch_add_explicit(&segment->tombstone_bytes, record_size(key->size, 0),
                                    memory_order_relaxed);
    vlog_applied(&session->writer, segment);
    return OORT_OK;
}

static int32_t store_record(struct value_session *session, const oort_key *key, struct found *at,
                            bool exists, const record_header *shape, const oort_bytes *parts,
                            uint32_t part_count)
{
    struct segment *segment;
    uint64_t offset;
    int32_t result = valuestore_append(session, shape, key->data, parts, part_count, &segment,
                                       &offset);
    if (result != OORT_OK)
        return result;
    result = valuestore_apply_set(session, key, at, exists, segment, offset, shape->stamp);
    vlog_applied(&session->writer, segment);
    if (result != OORT_OK) {
        /* What was refused must not come back with a rebuild. */
        oort_error first = session->base.error;
        if (append_tombstone(session, key) != OORT_OK)
            vlog_fail(&session->store->log, &first);
        session->base.error = first;
    }
    return result;
}

static int32_t remove_found(struct value_session *session, const oort_key *key, struct found *at)
{
    struct valuestore *store = session->store;
    record_header shape = {.kind = RECORD_DELETE,
                           .database = key->database,
                           .key_size = key->size,
                           .stamp = valuestore_stamp(session, true)};
    struct segment *segment;
    uint64_t offset;
    int32_t result = valuestore_append(session, &shape, key->data, NULL, 0, &segment, &offset);
    if (result != OORT_OK)
        return result;
    (void)atomic_fetch_add_explicit(&segment->tombstone_bytes, record_size(key->size, 0),
                                    memory_order_relaxed);
    valuestore_account(store, index_location(at->entry), -1);
    index_replace(store->index, &at->cursor, segment_location(segment->number, offset),
                  shape.stamp);
    (void)atomic_fetch_sub(&store->checkpoint->keys[key->database], 1);
    valuestore_note_removal(store);
    vlog_applied(&session->writer, segment);
    return OORT_OK;
}

static int32_t remove_key(oort_session *base, const oort_key *key)
{
    struct value_session *session = session_of(base);
    struct found at;
    int32_t result = valuestore_find(session, key, FIND_HOT, &at);
    if (result == OORT_MISSING)
        valuestore_saw_absence(session);
    if (result != OORT_OK)
        return result;
    if (!at.damaged && expired(at.record, base->now_us / 1000)) {
        /* Believe the time only of a whole record. */
        result = verify(session, at.segment, at.offset, at.record, true);
        if (result == OORT_OK)
            expire(session, key, &at);
        if (result != OORT_ERR_DAMAGED)
            return result == OORT_OK ? OORT_MISSING : result;
    }
    return remove_found(session, key, &at);
}

static int32_t write_key(oort_session *base, const oort_key *key, const oort_bytes *parts,
                         uint32_t part_count, int64_t expiry_ms)
{
    struct value_session *session = session_of(base);
    struct found at;
    uint64_t value_size = 0;
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].size > session->store->value_cap)
            value_size = UINT64_MAX / 2; /* the sum must not wrap */
        else if (value_size < UINT64_MAX / 2)
            value_size += parts[i].size;
    }
    int32_t result = check_write(session, value_size);
    if (result != OORT_OK)
        return result;
    if (session->in_batch)
        return valuestore_stash(session, key, parts, part_count, value_size, expiry_ms);
    if (expiry_ms != 0 && expiry_ms <= base->now_us / 1000) {
        result = remove_key(base, key);
        return result == OORT_MISSING ? OORT_OK : result;
    }
    result = valuestore_find_any(session, key, FIND_HOT, &at);
    if (result != OORT_OK && result != OORT_MISSING)
        return result;
    record_header shape = {.kind = RECORD_SET,
                           .database = key->database,
                           .key_size = key->size,
                           .value_size = (uint32_t)value_size,
                           .stamp = valuestore_stamp(session, false),
                           .expiry_ms = expiry_ms};
    return store_record(session, key, &at, result == OORT_OK, &shape, parts, part_count);
}

static int32_t set_expiry(oort_session *base, const oort_key *key, int64_t expiry_ms)
{
    struct value_session *session = session_of(base);
    struct valuestore *store = session->store;
    struct found at;
    oort_value value;
    int32_t result = look_key(base, key, &value);
    if (result != OORT_OK)
        return result;
    result = check_write(session, 0);
    if (result != OORT_OK)
        return result;
    result = valuestore_find(session, key, FIND_BLOCKING, &at);
    if (result != OORT_OK)
        return result;
    if (expiry_ms != 0 && expiry_ms <= base->now_us / 1000)
        return remove_found(session, key, &at);
    record_header shape = {.kind = RECORD_SET,
                           .database = key->database,
                           .key_size = key->size,
                           .value_size = (uint32_t)value.size,
                           .stamp = valuestore_stamp(session, false),
                           .expiry_ms = expiry_ms};
    if (value.size <= EXPIRY_REWRITE_BYTES) {
        oort_bytes part = {value.data, value.size};
        return store_record(session, key, &at, true, &shape, &part, 1);
    }
    struct segment *segment = value.origin;
    uint64_t offset = (uint64_t)(value.data - segment->map) - key->size - sizeof(record_header);
    record_target target = {.location = segment_location(segment->number, offset),
                            .sequence = segment->sequence};
    oort_bytes part = {(const uint8_t *)&target, sizeof target};
    shape.kind = RECORD_EXPIRY;
    shape.value_size = sizeof target;
    (void)atomic_fetch_or(&store->checkpoint->segment_flags[segment->number], SEGMENT_HAS_TARGETS);
    return store_record(session, key, &at, true, &shape, &part, 1);
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
    session->locked_single = -2;
    oort_session_set_clock(&session->base, 0);
    if (vlog_writer_open(&store->log, &session->writer, error) != OORT_OK) {
        free(session);
        return NULL;
    }
    return &session->base;
}

static oort_session *session_open(oort_store *base, oort_error *error)
{
    return valuestore_session(store_of(base), error);
}

static void session_close(oort_session *base)
{
    struct value_session *session = session_of(base);
    vlog_writer_close(&session->writer);
    valuestore_wake_maintenance(session->store);
    free(session->batch);
    free(session->batch_parts);
    free(session);
}

const struct oort_store_ops valuestore_ops = {.name = "valuestore",
                                              .close = valuestore_close,
                                              .get_stats = valuestore_get_stats,
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
                                              .fetch = fetch,
                                              .unpin = unpin,
                                              .session_open = session_open,
                                              .session_close = session_close,
                                              .prefetch = prefetch,
                                              .lock = lock_keys,
                                              .unlock = unlock_keys,
                                              .read = read_key,
                                              .look = look_key,
                                              .write = write_key,
                                              .remove = remove_key,
                                              .set_expiry = set_expiry,
                                              .batch_begin = valuestore_batch_begin,
                                              .batch_commit = valuestore_batch_commit,
                                              .batch_abort = valuestore_batch_abort,
                                              .pin = pin,
                                              .ticket = valuestore_ticket,
                                              .flush = valuestore_flush,
                                              .scan = valuestore_scan,
                                              .random_key = valuestore_random_key};
