/*
 * compaction.c: gives back the space of dead records.
 *
 * Compaction takes one sealed segment at a time and chooses the segment by its share of dead bytes.
 * It copies the records that the index points at to the compactor's own segment, with their stamps,
 * makes the copies durable, and then removes the files of the segment.
 *
 * A value is dropped only on evidence: a flush, or a later record of its key that the index knows
 * (a value, a tombstone or an expired value).  If the index knows nothing about a value, the record
 * is copied unchanged, the index is left alone, and the operator is told.  A rebuild decides about
 * it.
 *
 * Tombstones and flushes are copied too, unless a later record of the key or a flush supersedes
 * them. They are dropped when no other segment can hold an older version of the key and
 * TombstoneAge has passed.  If they were dropped sooner, a rebuild would bring the older version
 * back.  An expired value hides older values as well, so it leaves a tombstone.  The index entries
 * of dropped tombstones are erased after the files of the segment were removed, because until then
 * they are evidence about values in the segment.  If the segment holds a value without evidence,
 * all its tombstones are copied.
 *
 * A kill at any point leaves the old segment or both copies, which have the same stamp.  A segment
 * with a damaged record stays as it is until the operator removes it.
 */
#include "store/valuestore.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

/* This much dead space is not worth copying for while the disk has SPARE_FACTOR times as much
 * free. */
#define SPARE_SEGMENTS 16u
#define SPARE_FACTOR 16u
#define PRESSED_FACTOR 4u /* free space below this multiple of the watermark is scarce */
#define WINDOW_BYTES (1024u * 1024u)

static uint64_t oldest_keepable(const struct valuestore *store)
{
    int64_t seconds = clock_wall_us() / 1000000 - (int64_t)store->tombstone_age_seconds;
    return seconds > 0 ? (uint64_t)seconds * 1000000 << 8 : 0;
}

/* The segment with the oldest value, and the oldest stamp of a value in all other segments. */
struct oldest {
    const struct segment *segment;
    uint64_t stamp, second_stamp;
};

static struct oldest find_oldest(struct valuestore *store)
{
    struct oldest oldest = {NULL, UINT64_MAX, UINT64_MAX};
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        uint64_t stamp = segment != NULL ? atomic_load(&segment->min_stamp) : UINT64_MAX;
        if (stamp < oldest.stamp) {
            oldest.second_stamp = oldest.stamp;
            oldest.segment = segment;
            oldest.stamp = stamp;
        } else if (stamp < oldest.second_stamp) {
            oldest.second_stamp = stamp;
        }
    }
    return oldest;
}

/* The smallest stamp of a value in any segment except `but`. */
static uint64_t oldest_elsewhere(const struct oldest *oldest, const struct segment *but)
{
    return oldest->segment == but ? oldest->second_stamp : oldest->stamp;
}

/* The approximate number of tombstone bytes that a compaction would have to copy.  The estimate
 * assumes that the stamps of the tombstones are spread evenly. */
static uint64_t tombstones_kept(const struct oldest *oldest, const struct segment *segment,
                                uint64_t keep_after)
{
    uint64_t bytes = atomic_load(&segment->tombstone_bytes);
    uint64_t first = atomic_load(&segment->min_tombstone_stamp);
    uint64_t last = atomic_load(&segment->max_stamp);
    if (bytes == 0)
        return 0;
    uint64_t bound = oldest_elsewhere(oldest, segment);
    if (bound > keep_after)
        bound = keep_after;
    if (bound <= first)
        return bytes;
    if (bound > last)
        return 0;
    return (uint64_t)((double)bytes * ((double)(last - bound) / (double)(last - first)));
}

/* Without this rule a small store that is overwritten again and again would be copied all the time.
 * If its segments are left alone for a while, all their records die. */
static bool is_spare(const struct valuestore *store, uint64_t dead)
{
    return dead < SPARE_SEGMENTS * store->log.segment_bytes &&
           dead < atomic_load(&store->free_bytes) / SPARE_FACTOR;
}

/* The segment that gives back most space for the bytes that must be copied, if it is dead enough.
 *
 * In the background a segment without live records is always taken, because nothing is copied.  For
 * the other segments dead_percent is the share of the whole log that may be dead.  Until the log
 * reaches it, only segments that are far deader are taken.  Taking each segment as soon as it
 * reaches dead_percent would keep no more space free and copy several times as much, because
 * segments that are left alone lose more records. */
static struct segment *choose(struct valuestore *store, uint32_t dead_percent, bool background)
{
    struct segment *best = NULL;
    uint64_t best_percent = 0;
    uint64_t all = 0, dead = 0;
    uint64_t keep_after = oldest_keepable(store);
    struct oldest oldest = find_oldest(store);
    (void)pthread_mutex_lock(&store->log.mutex);
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        if (segment == NULL || segment->quarantined ||
            atomic_load(&segment->state) != SEGMENT_SEALED)
            continue;
        uint64_t size = atomic_load(&segment->tail) - SEGMENT_HEADER_BYTES;
        int64_t live = atomic_load(&store->checkpoint->live_bytes[number]);
        uint64_t kept = live > 0 ? (uint64_t)live : 0;
        kept += tombstones_kept(&oldest, segment, keep_after);
        all += size;
        if (kept >= size && size != 0)
            continue;
        dead += size - kept;
        uint64_t percent = size == 0 ? 100 : (size - kept) * 100 / size;
        /* Of equal segments take the one with the oldest values, because tombstones in other
         * segments may be waiting for these values to go. */
        if (percent >= dead_percent &&
            (percent > best_percent ||
             (best != NULL && percent == best_percent &&
              atomic_load(&segment->min_stamp) < atomic_load(&best->min_stamp)))) {
            best = segment;
            best_percent = percent;
        }
    }
    (void)pthread_mutex_unlock(&store->log.mutex);
    if (background && best_percent < 100 && is_spare(store, dead))
        return NULL;
    if (background && dead * 100 < all * dead_percent && best_percent < (100 + dead_percent) / 2)
        return NULL;
    return best;
}

struct compaction {
    struct valuestore *store;
    struct value_session *session;
    struct segment *source;
    uint64_t keep_after;   /* tombstones with a larger stamp are too young to be dropped */
    uint64_t elsewhere;    /* the smallest stamp of a value outside the source */
    uint64_t copied;       /* bytes */
    uint64_t unexplained;  /* values without evidence that they are dead */
    bool keeps_tombstones; /* the source holds such a value, so no tombstone is dropped */
    bool again;            /* copy the source again from its first record on */
    bool damaged;
};

/* Copies a value to the compactor's segment, with its stamp.  The index still points at the
 * original. */
static int32_t append_value(struct compaction *work, const record_header *from,
                            const uint8_t *value, uint32_t value_size, struct segment **segment,
                            uint64_t *offset)
{
    record_header shape = *from;
    shape.kind = RECORD_SET;
    shape.flags = 0;
    shape.value_size = value_size;
    oort_bytes part = {value, value_size};
    int32_t result = valuestore_append(work->session, &shape, record_key(from), &part, 1, segment,
                                       offset);
    if (result == OORT_OK)
        work->copied += record_size(shape.key_size, shape.value_size);
    return result;
}

static int32_t copy_set(struct compaction *work, const record_header *from, const uint8_t *value,
                        uint32_t value_size, index_cursor *cursor, index_entry entry)
{
    struct segment *segment;
    uint64_t offset;
    int32_t result = append_value(work, from, value, value_size, &segment, &offset);
    if (result != OORT_OK)
        return result;
    uint64_t location = segment_location(segment->number, offset);
    valuestore_account(work->store, location, 1);
    valuestore_account(work->store, index_location(entry), -1);
    index_replace(work->store->index, cursor, location, index_stamp(entry));
    vlog_applied(&work->session->writer, segment);
    return OORT_OK;
}

/* Leaves a tombstone for a record of the source: a copy of a tombstone, or a tombstone in the place
 * of an expired value, with the stamp that follows.  cursor: at the dead entry that points at the
 * record, or NULL if no entry does. */
static int32_t copy_tombstone(struct compaction *work, const record_header *record,
                              index_cursor *cursor)
{
    record_header shape = *record;
    struct segment *segment;
    uint64_t offset;
    if (record_check(work->source->map, (uint64_t)((const uint8_t *)record - work->source->map),
                     atomic_load(&work->source->tail), work->source->seed) == 0) {
        work->damaged = true;
        return OORT_OK;
    }
    shape.flags = 0;
    if (shape.kind != RECORD_FLUSH) {
        shape.kind = RECORD_DELETE;
        shape.value_size = 0;
        shape.expiry_ms = 0;
        shape.stamp |= 1;
    }
    int32_t result = valuestore_append(work->session, &shape, record_key(record), NULL, 0, &segment,
                                       &offset);
    if (result != OORT_OK)
        return result;
    (void)atomic_fetch_add(&segment->tombstone_bytes, record_size(shape.key_size, 0));
    if (cursor != NULL)
        index_replace(work->store->index, cursor, segment_location(segment->number, offset),
                      shape.stamp);
    vlog_applied(&work->session->writer, segment);
    work->copied += record_size(shape.key_size, 0);
    return OORT_OK;
}

/* The value that belongs to an expiry record.  Reads its bytes into memory first. */
static const record_header *target_value(struct compaction *work, const record_header *record)
{
    uint64_t location = 0;
    const record_header *value = valuestore_target(work->store, record, &location);
    if (value == NULL)
        return NULL;
    struct segment *segment = vlog_segment(&work->store->log, location);
    uint64_t offset = location_offset(location);
    if (segment_fetch(segment, offset, record_size(value->key_size, value->value_size)) !=
            OORT_OK ||
        record_check(segment->map, offset, atomic_load(&segment->tail), segment->seed) == 0)
        return NULL;
    return value;
}

/* Whether a tombstone with this stamp may be dropped. */
static bool droppable(const struct compaction *work, uint64_t stamp)
{
    return !work->keeps_tombstones && stamp <= work->keep_after && stamp < work->elsewhere;
}

/* Whether the entry is a later version of the record's key, or a copy of the (dead) record. */
static bool supersedes(const struct compaction *work, index_entry entry, const toc_entry *row,
                       uint64_t location, const record_header *record)
{
    struct segment *segment = vlog_segment(&work->store->log, index_location(entry));
    uint64_t offset = location_offset(index_location(entry));
    if (index_stamp(entry) < row->stamp || segment == NULL ||
        record_extent(segment->map, offset, atomic_load(&segment->tail)) == 0 ||
        record_extent(work->source->map, location_offset(location),
                      atomic_load(&work->source->tail)) == 0)
        return false;
    const record_header *later = segment_record(segment, offset);
    return later->key_size == record->key_size &&
           memcmp(record_key(later), record_key(record), record->key_size) == 0;
}

/* Whether the expiry record points at this location in the source.  Either record may be
 * damaged. */
static bool points_at(const struct compaction *work, const record_header *record, uint64_t location)
{
    record_target target;
    return record_points(record, &target) && target.location == location &&
           target.sequence == work->source->sequence;
}

/* The source's record or the target of the record is damaged, so the source stays as it is. */
static int32_t found_damaged(struct compaction *work, const toc_entry *row, uint64_t location)
{
    work->damaged = true;
    valuestore_damaged(work->store, work->source, location_offset(location), toc_size(row));
    return OORT_OK;
}

/* The value that belongs to a record of the source.  NULL: it is damaged, or its target is lost. */
static const record_header *value_of(struct compaction *work, const record_header *record,
                                     uint64_t location)
{
    if (record_check(work->source->map, location_offset(location), atomic_load(&work->source->tail),
                     work->source->seed) == 0)
        return NULL;
    return record->kind == RECORD_EXPIRY ? target_value(work, record) : record;
}

/* Copies a value of which there is no evidence that it is dead: the index knows neither the value
 * nor a record that replaced it.  A tombstone of the value may already have been dropped, so the
 * first such value makes the compaction start again. */
static int32_t copy_unexplained(struct compaction *work, const toc_entry *row, uint64_t location,
                                const record_header *record)
{
    struct segment *segment;
    uint64_t offset;
    const record_header *value = value_of(work, record, location);
    if (value == NULL)
        return found_damaged(work, row, location);
    if (!work->keeps_tombstones) {
        work->keeps_tombstones = work->again = true;
        return OORT_OK;
    }
    int32_t result = append_value(work, record, record_value(value), value->value_size, &segment,
                                  &offset);
    if (result != OORT_OK)
        return result;
    work->unexplained++;
    /* The copy counts as live.  Otherwise its segment would be compacted again and again. */
    valuestore_account(work->store, segment_location(segment->number, offset), 1);
    vlog_applied(&work->session->writer, segment);
    return OORT_OK;
}

/* Copies a value if the index or an expiry record in the index needs it, or if there is no evidence
 * that it is dead.  The caller holds its stripe. */
static int32_t copy_live(struct compaction *work, const toc_entry *row, uint64_t location,
                         const record_header *record)
{
    struct valuestore *store = work->store;
    bool has_targets = (atomic_load(&store->checkpoint->segment_flags[work->source->number]) &
                        SEGMENT_HAS_TARGETS) != 0;
    index_cursor cursor;
    index_entry entry;
    uint8_t database = toc_database(row);
    /* A flush stays in the log for as long as there are older values, so it is evidence. */
    bool superseded = row->stamp < atomic_load(&store->checkpoint->flush_stamp[database]);
    index_seek(store->index, row->hash, database, &cursor);
    while (index_next(store->index, &cursor, &entry)) {
        if (index_location(entry) == location) {
            if (stamp_is_dead(index_stamp(entry)))
                return superseded || droppable(work, row->stamp)
                           ? OORT_OK
                           : copy_tombstone(work, record, &cursor);
            const record_header *value = value_of(work, record, location);
            if (value == NULL)
                return found_damaged(work, row, location);
            return copy_set(work, record, record_value(value), value->value_size, &cursor, entry);
        }
        superseded = superseded || supersedes(work, entry, row, location, record);
        if (!has_targets || stamp_is_dead(index_stamp(entry)))
            continue;
        struct segment *other = vlog_segment(&store->log, index_location(entry));
        uint64_t offset = location_offset(index_location(entry));
        uint64_t target = 0;
        if (other == NULL ||
            record_check(other->map, offset, atomic_load(&other->tail), other->seed) == 0)
            continue;
        const record_header *pointer = segment_record(other, offset);
        if (!points_at(work, pointer, location))
            continue;
        if (record_check(work->source->map, location_offset(location),
                         atomic_load(&work->source->tail), work->source->seed) == 0) {
            work->damaged = true;
            return OORT_OK;
        }
        if (valuestore_target(store, pointer, &target) != record)
            continue;
        return copy_set(work, pointer, record_value(record), record->value_size, &cursor, entry);
    }
    if (superseded)
        return OORT_OK;
    if (row->expiry_ms == 0 || row->expiry_ms > work->session->base.now_us / 1000)
        return copy_unexplained(work, row, location, record);
    return droppable(work, row->stamp) ? OORT_OK : copy_tombstone(work, record, NULL);
}

/* Copies a tombstone unless a later record of its key supersedes it.  The caller holds its
 * stripe. */
static int32_t copy_delete(struct compaction *work, const toc_entry *row, uint64_t location,
                           const record_header *record)
{
    struct valuestore *store = work->store;
    index_cursor cursor;
    index_entry entry;
    index_seek(store->index, row->hash, toc_database(row), &cursor);
    while (index_next(store->index, &cursor, &entry)) {
        if (index_location(entry) == location)
            return copy_tombstone(work, record, &cursor);
        if (supersedes(work, entry, row, location, record))
            return OORT_OK;
    }
    return copy_tombstone(work, record, NULL);
}

static int32_t compact_entry(struct compaction *work, const toc_entry *row)
{
    struct valuestore *store = work->store;
    uint64_t offset = toc_offset(row);
    uint64_t location = segment_location(work->source->number, offset);
    uint32_t kind = toc_kind(row);
    const record_header *record = segment_record(work->source, offset);
    if (kind == RECORD_FLUSH)
        return copy_tombstone(work, record, NULL);
    uint32_t stripe = stripe_of(row->hash);
    valuestore_lock_stripe(store, stripe);
    int32_t result = kind == RECORD_DELETE ? copy_delete(work, row, location, record)
                                           : copy_live(work, row, location, record);
    valuestore_unlock_stripe(store, stripe);
    return result;
}

/* The disk is filling up, so space matters more than the rate limit. */
static bool is_pressed(const struct valuestore *store)
{
    return atomic_load(&store->free_bytes) / PRESSED_FACTOR < store->free_bytes_low;
}

/* Whether the table of contents and the index show that nothing of this record must be kept, so
 * that the record need not be read.  A later entry with the same 38 hash bits is taken for an entry
 * of the same key.  It can belong to another key only if the index has lost the entry of this key,
 * too. */
static bool is_dead(struct compaction *work, const toc_entry *row)
{
    struct valuestore *store = work->store;
    uint32_t kind = toc_kind(row);
    uint8_t database = toc_database(row);
    uint64_t location = segment_location(work->source->number, toc_offset(row));
    if (kind == RECORD_FLUSH)
        return droppable(work, row->stamp);
    if (row->stamp < atomic_load(&store->checkpoint->flush_stamp[database]) ||
        (kind == RECORD_DELETE && droppable(work, row->stamp)))
        return true;
    if (kind == RECORD_EXPIRY || row->expiry_ms != 0)
        return false; /* a tombstone may have to replace it */
    index_cursor cursor;
    index_entry entry;
    uint32_t stripe = stripe_of(row->hash);
    valuestore_lock_stripe(store, stripe);
    /* An expiry record may need the value.  The flag is read under the stripe, because a session
     * may be writing such a record now. */
    bool unneeded = kind == RECORD_DELETE ||
                    (atomic_load(&store->checkpoint->segment_flags[work->source->number]) &
                     SEGMENT_HAS_TARGETS) == 0;
    bool superseded = false;
    index_seek(store->index, row->hash, database, &cursor);
    while (unneeded && index_next(store->index, &cursor, &entry)) {
        unneeded = index_location(entry) != location;
        superseded = superseded || index_stamp(entry) >= row->stamp;
    }
    valuestore_unlock_stripe(store, stripe);
    return unneeded && superseded;
}

/* Erases the dead entries that still point into the source.  Their records need not be copied, and
 * the values that they hid in the source were not copied either.  The files of the source are gone,
 * so no value in it needs the evidence any more. */
static void forget_dead(struct compaction *work, const toc_header *toc)
{
    struct valuestore *store = work->store;
    for (uint64_t i = 0; i < toc->count; i++) {
        const toc_entry *row = &toc_entries(toc)[i];
        uint32_t kind = toc_kind(row);
        if (kind == RECORD_FLUSH || (kind != RECORD_DELETE && row->expiry_ms == 0))
            continue;
        uint64_t location = segment_location(work->source->number, toc_offset(row));
        index_cursor cursor;
        index_entry entry;
        uint32_t stripe = stripe_of(row->hash);
        valuestore_lock_stripe(store, stripe);
        index_seek(store->index, row->hash, toc_database(row), &cursor);
        while (index_next(store->index, &cursor, &entry)) {
            if (index_location(entry) == location && stamp_is_dead(index_stamp(entry))) {
                index_erase(store->index, &cursor);
                break;
            }
        }
        valuestore_unlock_stripe(store, stripe);
    }
}

/* Dead records are not read, and the rate limit counts only what is read.  A segment without live
 * records therefore goes at once, and a small store cannot be overwritten faster than its space
 * comes back. */
static int32_t copy_segment(struct compaction *work, const toc_header *toc, bool paced,
                            oort_error *error)
{
    struct valuestore *store = work->store;
    uint64_t fetched = 0, read = 0;
    int64_t live = atomic_load(&store->checkpoint->live_bytes[work->source->number]);
    bool dense = live > 0 && (uint64_t)live > atomic_load(&work->source->tail) / 2;
    int64_t begun = clock_monotonic_ns() / 1000;
    for (uint64_t i = 0; i < toc->count; i++) {
        const toc_entry *row = &toc_entries(toc)[i];
        uint64_t end = toc_offset(row) + toc_size(row);
        if (i % INDEX_PREFETCH_BATCH == 0)
            valuestore_prefetch_entries(store, row, toc->count - i);
        if (end > atomic_load(&work->source->tail)) {
            work->damaged = true;
            return OORT_OK;
        }
        if (i % INDEX_PREFETCH_BATCH == 0)
            oort_session_set_clock(&work->session->base, 0);
        if (is_dead(work, row))
            continue;
        if (end > fetched) {
            uint64_t begin = toc_offset(row);
            uint64_t from = begin > fetched ? begin : fetched;
            uint64_t size = dense && end - from < WINDOW_BYTES ? WINDOW_BYTES : end - from;
            if (segment_fetch(work->source, from, size) != OORT_OK) {
                work->damaged = true;
                return OORT_OK;
            }
            fetched = from + size;
            read += size;
            int64_t due = (int64_t)(read * 1000000 / store->compaction_rate);
            int64_t early = due - (clock_monotonic_ns() / 1000 - begun);
            if (paced && early > 0 && !store->stopping && !is_pressed(store))
                (void)usleep((useconds_t)(early < 500000 ? early : 500000));
            oort_session_set_clock(&work->session->base, 0);
        }
        int32_t result = compact_entry(work, row);
        if (result != OORT_OK) {
            *error = work->session->base.error;
            return result;
        }
        if (work->damaged || work->again)
            return OORT_OK;
    }
    return OORT_OK;
}

/* The table of contents is lost or damaged.  It is made again from the records. */
static int32_t renew_toc(struct valuestore *store, struct segment *source, oort_error *error)
{
    int32_t result = segment_reopen(store->log.directory_fd, source, error);
    if (result != OORT_OK)
        return result;
    result = segment_seal(store->log.directory_fd, source, error);
    (void)close(source->fd);
    source->fd = -1;
    events_post(&store->events, EVENT_WARNING, OORT_EVENT_DAMAGE, source->sequence,
                "segment %016" PRIx64 ".toc was damaged; %s", source->sequence,
                result == OORT_OK ? "it was rebuilt from the segment" : error->text);
    if (result == OORT_ERR_IO)
        vlog_fail(&store->log, error);
    return result;
}

int32_t valuestore_compact_one(struct valuestore *store, uint32_t dead_percent, bool paced,
                               oort_error *error)
{
    (void)pthread_mutex_lock(&store->compaction_mutex);
    struct segment *source = choose(store, dead_percent, paced);
    if (source == NULL) {
        (void)pthread_mutex_unlock(&store->compaction_mutex);
        return 0;
    }
    OORT_ASSERT(atomic_load(&source->state) == SEGMENT_SEALED && !source->quarantined,
                "only sealed segments without damage are compacted");
    int64_t began_ns = clock_monotonic_ns();
    atomic_store(&store->compacting, true);
    valuestore_check_disk(store);
    int64_t live = atomic_load(&store->checkpoint->live_bytes[source->number]);
    struct oldest oldest = find_oldest(store);
    struct compaction work = {.store = store,
                              .session = value_session_of(store->compaction_session),
                              .source = source,
                              .keep_after = oldest_keepable(store),
                              .elsewhere = oldest_elsewhere(&oldest, source)};
    uint64_t mapped = 0;
    int32_t result = OORT_OK;
    const toc_header *toc = NULL;
    if (live > 0 && atomic_load(&store->free_bytes) < store->log.segment_bytes)
        result = oort_fail(error, OORT_ERR_FULL, 0,
                           "no room to compact segment %016" PRIx64 ".log: it needs %" PRIu64
                           " free bytes in %s",
                           source->sequence, store->log.segment_bytes, store->log.directory);
    if (result == OORT_OK) {
        toc = toc_map(store->log.directory_fd, source->sequence, source->capacity, true, &mapped);
        if (toc == NULL) {
            result = renew_toc(store, source, error);
            if (result == OORT_OK && !source->quarantined)
                toc = toc_map(store->log.directory_fd, source->sequence, source->capacity, true,
                              &mapped);
        }
        if (result == OORT_OK && toc == NULL)
            work.damaged = true;
        else if (result == OORT_OK)
            do {
                work.again = false;
                result = copy_segment(&work, toc, paced, error);
            } while (result == OORT_OK && work.again);
    }
    if (work.unexplained != 0)
        events_post(
            &store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, source->sequence,
            "segment %016" PRIx64 ".log: the index knows neither %" PRIu64
            " of its values nor records that replaced them; the log keeps the values: stop oortd,"
            " remove %s/index and start oortd again to rebuild the index",
            source->sequence, work.unexplained, store->log.directory);
    if (result == OORT_OK && work.damaged) {
        source->quarantined = true;
        events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, source->sequence,
                    "segment %016" PRIx64 ".log holds damage and will not be compacted: keep it "
                    "until its keys are restored",
                    source->sequence);
        result = 1;
    } else if (result == OORT_OK) {
        uint64_t size = atomic_load(&source->tail);
        OORT_ASSERT(!source->quarantined, "a damaged segment is never removed");
        /* The copies must be durable before the originals are removed. */
        result = vlog_sync(&store->log, error);
        if (result == OORT_OK)
            result = vlog_unlink(&store->log, source, error);
        if (result == OORT_OK) {
            forget_dead(&work, toc);
            /* A thread that found a record of the source before the last change of the index holds
             * a stripe.  When every stripe has been taken once, no such thread is left. */
            for (uint32_t stripe = 0; stripe < STRIPES; stripe++) {
                valuestore_lock_stripe(store, stripe);
                valuestore_unlock_stripe(store, stripe);
            }
            vlog_release(&store->log, source);
            uint64_t took_ns = (uint64_t)(clock_monotonic_ns() - began_ns);
            metric_add(&store->base.metrics.compactions, 1);
            metric_add(&store->base.metrics.compacted_bytes,
                       size > work.copied ? size - work.copied : 0);
            histogram_add(&store->base.histograms.compaction, took_ns, 1, took_ns);
            result = 1;
        }
    }
    if (toc != NULL)
        (void)munmap((void *)(uintptr_t)toc, mapped);
    atomic_store(&store->compacting, false);
    (void)pthread_mutex_unlock(&store->compaction_mutex);
    return result;
}

int32_t valuestore_compact(oort_store *base, uint32_t dead_percent, oort_error *error)
{
    struct valuestore *store = valuestore_of(base);
    int32_t result;
    /* Full segments of the sessions count only when they are sealed. */
    if (!store->threads_running && vlog_seal_pending(&store->log, error) < 0)
        return error->code;
    do {
        result = valuestore_compact_one(store, dead_percent == 0 ? 1 : dead_percent, false, error);
    } while (result == 1);
    return result;
}
