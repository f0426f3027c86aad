/*
 * batch.c: writes that take effect together or not at all.
 *
 * The writes are collected until the commit.  The commit appends them without gaps to one segment,
 * followed by an end record with their number.  Only then does it change the index.  Recovery drops
 * a batch without an end record.  All records of a batch have the same stamp, so if a batch writes
 * a key several times, only the last write is logged.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int32_t valuestore_batch_begin(oort_session *base, uint32_t count, uint64_t bytes)
{
    struct value_session *session = value_session_of(base);
    uint64_t most = (uint64_t)count * (sizeof(record_header) + RECORD_ALIGN) + bytes +
                    record_size(0, sizeof(record_batch_end));
    OORT_ASSERT(!session->in_batch, "a batch ends before the next one begins");
    if (most > session->store->log.segment_bytes - SEGMENT_HEADER_BYTES)
        return oort_fail(&base->error, OORT_ERR_TOO_BIG, 0,
                         "a batch of %" PRIu64 " bytes is larger than a segment (%" PRIu64
                         " bytes)",
                         most, session->store->log.segment_bytes);
    if (session->batch_capacity < count) {
        struct batch_write *larger = realloc(session->batch, count * sizeof *larger);
        if (larger == NULL)
            return oort_fail(&base->error, OORT_ERR_NOMEM, ENOMEM, "no memory for a batch");
        session->batch = larger;
        session->batch_capacity = count;
    }
    session->in_batch = true;
    session->batch_count = 0;
    session->batch_part_count = 0;
    return OORT_OK;
}

int32_t valuestore_stash(struct value_session *session, const oort_key *key,
                         const oort_bytes *parts, uint32_t part_count, uint64_t value_size,
                         int64_t expiry_ms)
{
    struct found at;
    int32_t result = valuestore_find_any(session, key, FIND_HOT, &at);
    if (result != OORT_OK && result != OORT_MISSING)
        return result;
    if (session->batch_count == session->batch_capacity)
        return oort_fail(&session->base.error, OORT_ERR_ARGUMENT, 0,
                         "the batch has more writes than it was begun with");
    if (session->batch_part_capacity - session->batch_part_count < part_count) {
        uint32_t capacity = (session->batch_part_capacity + part_count) * 2;
        oort_bytes *larger = realloc(session->batch_parts, capacity * sizeof *larger);
        if (larger == NULL)
            return oort_fail(&session->base.error, OORT_ERR_NOMEM, ENOMEM, "no memory for a batch");
        session->batch_parts = larger;
        session->batch_part_capacity = capacity;
    }
    memcpy(session->batch_parts + session->batch_part_count, parts, part_count * sizeof *parts);
    session->batch[session->batch_count] =
        (struct batch_write){.key = *key,
                             .first_part = session->batch_part_count,
                             .part_count = part_count,
                             .value_size = value_size,
                             .expiry_ms = expiry_ms,
                             .order = session->batch_count};
    session->batch_part_count += part_count;
    session->batch_count++;
    return OORT_OK;
}

static int by_key(const void *a, const void *b)
{
    const struct batch_write *left = a, *right = b;
    if (left->key.hash != right->key.hash)
        return left->key.hash > right->key.hash ? 1 : -1;
    if (left->key.size != right->key.size)
        return left->key.size > right->key.size ? 1 : -1;
    int difference = memcmp(left->key.data, right->key.data, left->key.size);
    if (difference != 0)
        return difference;
    return left->order > right->order ? 1 : -1;
}

static bool equal_keys(const oort_key *a, const oort_key *b)
{
    return a->hash == b->hash && a->size == b->size && a->database == b->database &&
           memcmp(a->data, b->data, a->size) == 0;
}

int32_t valuestore_batch_commit(oort_session *base)
{
    struct value_session *session = value_session_of(base);
    struct valuestore *store = session->store;
    struct batch_write *batch = session->batch;
    record_batch_end end = {0, 0};
    uint64_t total = record_size(0, sizeof end);
    OORT_ASSERT(session->in_batch, "a batch that is committed has begun");
    session->in_batch = false;
    if (session->batch_count == 0)
        return OORT_OK;
    /* All records get the same stamp, so only the last of several writes of a key may remain. */
    qsort(batch, session->batch_count, sizeof *batch, by_key);
    for (uint32_t i = 0; i < session->batch_count; i++) {
        batch[i].superseded = i + 1 < session->batch_count &&
                              equal_keys(&batch[i].key, &batch[i + 1].key);
        if (!batch[i].superseded) {
            total += record_size(batch[i].key.size, batch[i].value_size);
            end.count++;
        }
    }
    struct segment *segment;
    uint64_t offset;
    int32_t result = vlog_reserve(&session->writer, total, true, &segment, &offset, &base->error);
    if (result != OORT_OK)
        return result;
    uint64_t stamp = valuestore_stamp(session, false);
    for (uint32_t i = 0; i < session->batch_count; i++) {
        if (batch[i].superseded)
            continue;
        record_header shape = {.kind = RECORD_SET,
                               .flags = RECORD_IN_BATCH,
                               .database = batch[i].key.database,
                               .key_size = batch[i].key.size,
                               .value_size = (uint32_t)batch[i].value_size,
                               .stamp = stamp,
                               .expiry_ms = batch[i].expiry_ms};
        valuestore_write_record(segment, offset, &shape, batch[i].key.data,
                                session->batch_parts + batch[i].first_part, batch[i].part_count);
        batch[i].location = segment_location(segment->number, offset);
        offset += record_size(shape.key_size, shape.value_size);
    }
    record_header closing = {.kind = RECORD_BATCH_END, .value_size = sizeof end, .stamp = stamp};
    oort_bytes part = {(const uint8_t *)&end, sizeof end};
    valuestore_write_record(segment, offset, &closing, (const uint8_t *)"", &part, 1);
    vlog_append(&session->writer, segment, total);
    for (uint32_t i = 0; i < session->batch_count; i++)
        if (!batch[i].superseded)
            segment_note_expiry(segment, batch[i].expiry_ms);
    session->wrote = true;

    for (uint32_t i = 0; i < session->batch_count && result == OORT_OK; i++) {
        struct found at;
        if (batch[i].superseded)
            continue;
        int32_t found = valuestore_find_any(session, &batch[i].key, FIND_BLOCKING, &at);
        result = valuestore_apply_set(session, &batch[i].key, &at, found == OORT_OK, segment,
                                      location_offset(batch[i].location), stamp);
    }
    vlog_applied(&session->writer, segment);
    if (result != OORT_OK)
        /* The log has the whole batch, but the index only part of it.  Only a rebuild corrects
         * that. */
        vlog_fail(&store->log, &base->error);
    return result;
}

void valuestore_batch_abort(oort_session *base)
{
    struct value_session *session = value_session_of(base);
    session->in_batch = false;
    session->batch_count = 0;
}
