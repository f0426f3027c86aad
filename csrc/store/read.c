/*
 * read.c: reads values, and fetches records that are not in memory.
 *
 * A value is returned only if the checksum of its record is right.  The checksum of a large value
 * is computed once, by the thread that fetches the value.  An expired value is not returned, and
 * its entry becomes dead.
 */
#include "store/valuestore.h"

#include <inttypes.h>

static int32_t damaged_answer(struct value_session *session, const struct found *at)
{
    if (at->segment != NULL)
        valuestore_damaged(session->store, at->segment, at->offset,
                           at->record ? record_size(at->record->key_size, at->record->value_size)
                                      : sizeof(record_header));
    return oort_fail(&session->base.error, OORT_ERR_DAMAGED, 0,
                     "the record of this key is damaged; write it again or restore it");
}

int32_t valuestore_verify(struct value_session *session, struct segment *segment, uint64_t offset,
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

int32_t valuestore_fetch(oort_store *base, oort_cold cold)
{
    struct valuestore *store = valuestore_of(base);
    /* The caller holds no stripe.  A pin keeps the segment mapped.  It is taken under the log's
     * mutex, which vlog_release takes too. */
    (void)pthread_mutex_lock(&store->log.mutex);
    struct segment *segment = cold.location >> 40 == 0 ? vlog_segment(&store->log, cold.location)
                                                       : NULL;
    if (segment != NULL)
        segment_pin(segment);
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
    segment_unpin(segment);
    return result;
}

void valuestore_expire(struct value_session *session, const oort_key *key, struct found *at)
{
    struct valuestore *store = session->store;
    uint64_t location = index_location(at->entry);
    valuestore_account(store, location, -1);
    index_replace(store->index, &at->cursor, location, index_stamp(at->entry) | 1);
    valuestore_uncount(store, key->database);
    metric_add(&store->base.metrics.expired_keys, 1);
}

static int32_t read_record(oort_session *base, const oort_key *key, oort_value *out,
                           bool with_value)
{
    struct value_session *session = value_session_of(base);
    struct valuestore *store = session->store;
    struct found at;
    int32_t result = valuestore_find(session, key, FIND_HOT, &at);
    if (result == OORT_MISSING)
        valuestore_saw_absence(session);
    if (result != OORT_OK)
        return result;
    if (at.damaged)
        return damaged_answer(session, &at);
    result = valuestore_verify(session, at.segment, at.offset, at.record, with_value);
    if (result == OORT_ERR_DAMAGED)
        return damaged_answer(session, &at);
    if (result != OORT_OK)
        return result;
    if (expired(at.record, base->now_us / 1000)) {
        /* Trust the expiry only if the record's checksum is right. */
        result = valuestore_verify(session, at.segment, at.offset, at.record, true);
        if (result == OORT_ERR_DAMAGED)
            return damaged_answer(session, &at);
        if (result != OORT_OK)
            return result;
        valuestore_expire(session, key, &at);
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
        result = valuestore_verify(session, segment, offset, record, with_value);
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

int32_t valuestore_read(oort_session *base, const oort_key *key, oort_value *out)
{
    return read_record(base, key, out, true);
}

int32_t valuestore_look(oort_session *base, const oort_key *key, oort_value *out)
{
    return read_record(base, key, out, false);
}

void valuestore_pin(oort_session *base, oort_value *value)
{
    struct segment *segment = value->origin;
    (void)base;
    segment_pin(segment);
    value->pin = segment;
}

void valuestore_unpin(oort_store *base, oort_value *value)
{
    struct segment *segment = value->pin;
    (void)base;
    value->pin = NULL;
    segment_unpin(segment);
}
