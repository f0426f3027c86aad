/*
 * write.c: changes keys: stamps, appending records, pointing the index at them.
 *
 * The log holds a record before the index points at it.  Stamps only grow, whatever the clock does.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* To change an expiry, a value up to this size is written again.  For a larger value an expiry
 * record is written, which points at the value. */
#define EXPIRY_REWRITE_BYTES 256u

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
    OORT_ASSERT(next > seen, "stamps only grow");
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
    uint64_t size = record_size(shape->key_size, shape->value_size);
    OORT_ASSERT(offset % RECORD_ALIGN == 0 && offset >= SEGMENT_HEADER_BYTES &&
                    offset <= segment->capacity && size <= segment->capacity - offset,
                "a record is aligned and lies inside its segment");
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
    valuestore_check_locked(session, key->hash);
    OORT_ASSERT(offset < atomic_load_explicit(&segment->tail, memory_order_relaxed),
                "the log holds a record before the index points at it");
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
    /* An estimate for compaction's choice.  The table of contents will have the exact number. */
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
        /* The client gets an error, so a rebuild must not bring the value back. */
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
    valuestore_uncount(store, key->database);
    valuestore_note_removal(store);
    vlog_applied(&session->writer, segment);
    return OORT_OK;
}

int32_t valuestore_remove(oort_session *base, const oort_key *key)
{
    struct value_session *session = value_session_of(base);
    struct found at;
    int32_t result = valuestore_find(session, key, FIND_HOT, &at);
    if (result == OORT_MISSING)
        valuestore_saw_absence(session);
    if (result != OORT_OK)
        return result;
    if (!at.damaged && expired(at.record, base->now_us / 1000)) {
        /* Trust the expiry only if the record's checksum is right. */
        result = valuestore_verify(session, at.segment, at.offset, at.record, true);
        if (result == OORT_OK)
            valuestore_expire(session, key, &at);
        if (result != OORT_ERR_DAMAGED)
            return result == OORT_OK ? OORT_MISSING : result;
    }
    return remove_found(session, key, &at);
}

int32_t valuestore_write(oort_session *base, const oort_key *key, const oort_bytes *parts,
                         uint32_t part_count, int64_t expiry_ms)
{
    struct value_session *session = value_session_of(base);
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
        result = valuestore_remove(base, key);
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

int32_t valuestore_set_expiry(oort_session *base, const oort_key *key, int64_t expiry_ms)
{
    struct value_session *session = value_session_of(base);
    struct valuestore *store = session->store;
    struct found at;
    oort_value value;
    int32_t result = valuestore_look(base, key, &value);
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
