/*
 * recovery.c: brings the index up to date with the log, by a replay of the records that a killed
 * process had not put into the index, or by a rebuild from tables of contents and scans.  open.c
 * decides which.
 *
 * Segments that were active are sealed.  Writers begin new segments.
 */
#include "store/valuestore.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

struct recovery {
    struct valuestore *store;
    struct value_session *session;
    uint64_t flush_stamp[OORT_DATABASES];
    uint64_t highest_stamp;
    uint64_t records;
    oort_open_progress *progress; /* NULL: not wanted */
    int32_t result;
    oort_error *error;
};

/* ---- telling how far it is -------------------------------------------------------------- */

static void tell(uint64_t *figure, uint64_t value)
{
    __atomic_store_n(figure, value, __ATOMIC_RELAXED);
}

static void tell_stage(struct recovery *work, enum oort_open_stage stage, uint64_t segments)
{
    if (work->progress == NULL)
        return;
    tell(&work->progress->done, 0);
    tell(&work->progress->segments, segments);
    tell(&work->progress->stage, (uint64_t)stage);
}

static void tell_done(struct recovery *work)
{
    if (work->progress != NULL)
        tell(&work->progress->done, work->progress->done + 1);
}

static void count_record(struct recovery *work)
{
    work->records++;
    if (work->progress != NULL)
        tell(&work->progress->records, work->records);
}

/* ---- applying records ----------------------------------------------------------------- */

/* The record's bytes are live unless it is a tombstone.  The size of a plain value is known without
 * reading the record. */
static void add_live(struct recovery *work, uint64_t location, uint32_t kind, uint64_t size)
{
    if (kind == RECORD_SET)
        (void)atomic_fetch_add(&work->store->checkpoint->live_bytes[location_number(location)],
                               (int64_t)size);
    else if (kind != RECORD_DELETE)
        valuestore_account(work->store, location, 1);
}

/* The record points into another segment.  Marks that segment, so that compaction looks for such
 * records. The target may be damaged. */
static void note_target(struct recovery *work, uint64_t location)
{
    struct vlog *log = &work->store->log;
    struct segment *segment = vlog_segment(log, location);
    uint64_t offset = location_offset(location);
    record_target target;
    if (record_extent(segment->map, offset, atomic_load(&segment->tail)) == 0 ||
        !record_points(segment_record(segment, offset), &target))
        return;
    segment = vlog_segment(log, target.location);
    if (segment != NULL && segment->sequence == target.sequence)
        (void)atomic_fetch_or(&work->store->checkpoint->segment_flags[segment->number],
                              SEGMENT_HAS_TARGETS);
}

/* Whether the record at location replaces the entry.  The larger stamp wins.  At equal stamps a
 * full value wins over an expiry record, which compaction has merged into the value.  Damaged
 * records compete by their stamps, because an older value must not be served in place of a damaged
 * newer one. */
static bool wins(const struct found *at, uint32_t kind, uint64_t stamp, uint64_t location,
                 bool replay)
{
    if (stamp > index_stamp(at->entry))
        return true;
    if (stamp < index_stamp(at->entry))
        return false;
    if (replay && index_location(at->entry) != location)
        return true; /* the entry was half written when the process died */
    return kind == RECORD_SET && at->record != NULL && at->record->kind == RECORD_EXPIRY;
}

/* Finds the entry of the key whose record lies at location.  If a table of contents lists the
 * record but the record is damaged now, its key is unknown, and the hash alone decides. */
static bool find_same(struct recovery *work, uint64_t hash, uint8_t database, uint64_t location,
                      uint64_t size, struct found *at)
{
    struct valuestore *store = work->store;
    struct segment *segment = vlog_segment(&store->log, location);
    uint64_t offset = location_offset(location);
    const record_header *record = segment_record(segment, offset);
    if (record_extent(segment->map, offset, atomic_load(&segment->tail)) == size &&
        record->database == database &&
        oort_ring_hash(record_key(record), record->key_size, database) == hash) {
        oort_key key = {.data = record_key(record),
                        .hash = hash,
                        .size = record->key_size,
                        .database = database};
        return valuestore_find_any(work->session, &key, FIND_BLOCKING, at) == OORT_OK;
    }
    index_seek(store->index, hash, database, &at->cursor);
    if (!index_next(store->index, &at->cursor, &at->entry))
        return false;
    at->damaged = true;
    at->dead = stamp_is_dead(index_stamp(at->entry));
    at->record = NULL;
    return true;
}

static int32_t apply(struct recovery *work, uint64_t hash, uint8_t database, uint32_t kind,
                     uint64_t stamp, uint64_t location, uint64_t size, bool replay)
{
    struct valuestore *store = work->store;
    index_cursor cursor;
    index_entry entry;
    count_record(work);
    if (stamp > work->highest_stamp)
        work->highest_stamp = stamp;
    index_seek(store->index, hash, database, &cursor);
    if (index_next(store->index, &cursor, &entry)) {
        struct found at;
        if (find_same(work, hash, database, location, size, &at)) {
            if (!wins(&at, kind, stamp, location, replay))
                return OORT_OK;
            if (!at.damaged && !at.dead)
                valuestore_account(store, index_location(at.entry), -1);
            add_live(work, location, kind, size);
            if (kind == RECORD_EXPIRY)
                note_target(work, location);
            index_replace(store->index, &at.cursor, location, stamp);
            return OORT_OK;
        }
    }
    int32_t result = index_insert(store->index, hash, database, location, stamp);
    if (result != OORT_OK)
        return oort_fail(work->error, result, 0,
                         "%s/index cannot grow while it is rebuilt; free disk space",
                         store->log.directory);
    add_live(work, location, kind, size);
    if (kind == RECORD_EXPIRY)
        note_target(work, location);
    return OORT_OK;
}

static void apply_flush(struct recovery *work, bool all, uint8_t database, uint64_t stamp)
{
    count_record(work);
    if (stamp > work->highest_stamp)
        work->highest_stamp = stamp;
    for (int i = 0; i < OORT_DATABASES; i++)
        if ((all || i == database) && stamp > work->flush_stamp[i])
            work->flush_stamp[i] = stamp;
}

static int32_t apply_record(struct recovery *work, struct segment *segment, uint64_t offset,
                            const record_header *record, uint64_t size, bool replay)
{
    uint8_t database = record->database & 15;
    uint64_t location = segment_location(segment->number, offset);
    if (record->kind == RECORD_FLUSH) {
        apply_flush(work, record->database == RECORD_ALL_DATABASES, database, record->stamp);
        return OORT_OK;
    }
    uint64_t hash = oort_ring_hash(record_key(record), record->key_size, database);
    if (record->stamp < atomic_load(&segment->min_stamp))
        atomic_store(&segment->min_stamp, record->stamp);
    return apply(work, hash, database, record->kind, record->stamp, location, size, replay);
}

static int32_t visit_rebuild(void *context, struct segment *segment, uint64_t offset,
                             const record_header *record, uint64_t size)
{
    return apply_record(context, segment, offset, record, size, false);
}

static int32_t visit_replay(void *context, struct segment *segment, uint64_t offset,
                            const record_header *record, uint64_t size)
{
    return apply_record(context, segment, offset, record, size, true);
}

static int32_t visit_nothing(void *context, struct segment *segment, uint64_t offset,
                             const record_header *record, uint64_t size)
{
    (void)context, (void)segment, (void)offset, (void)record, (void)size;
    return 0;
}

/* ---- replay and rebuild ------------------------------------------------------------------ */

static void report_scan(struct valuestore *store, const struct segment *segment,
                        const segment_damage *damage)
{
    if (segment->lost_bytes != 0) {
        metric_add(&store->base.metrics.damaged_bytes, segment->lost_bytes);
        events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, segment->sequence,
                    "segment %016" PRIx64 ".log has lost its last %" PRIu64
                    " bytes and the records in them: restore them from a copy",
                    segment->sequence, segment->lost_bytes);
    }
    if (damage->damaged_runs != 0) {
        metric_add(&store->base.metrics.damaged_records, damage->damaged_runs);
        metric_add(&store->base.metrics.damaged_bytes, damage->damaged_bytes);
        events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, segment->sequence,
                    "segment %016" PRIx64 ".log: %" PRIu64 " damaged bytes in %" PRIu64
                    " places, the first at offset %" PRIu64
                    "; the records in them are lost: restore them from a copy",
                    segment->sequence, damage->damaged_bytes, damage->damaged_runs,
                    damage->first_damage);
    }
    if (damage->cut_bytes != 0) {
        metric_add(&store->base.metrics.cut_bytes, damage->cut_bytes);
        events_post(&store->events, EVENT_NOTICE, OORT_EVENT_RECOVERY, segment->sequence,
                    "segment %016" PRIx64 ".log: cut %" PRIu64
                    " bytes of an unfinished write at offset %" PRIu64 " (never synced)",
                    segment->sequence, damage->cut_bytes, damage->tail);
    }
    if (damage->dropped != 0)
        events_post(&store->events, EVENT_NOTICE, OORT_EVENT_RECOVERY, segment->sequence,
                    "segment %016" PRIx64 ".log: dropped %" PRIu64
                    " records of a batch that was never finished",
                    segment->sequence, damage->dropped);
}

/* The tail of an unsealed segment is known.  Hands the segment on to be sealed, or removes it if it
 * has no records. */
static int32_t settle(struct valuestore *store, struct segment *segment, uint64_t tail,
                      oort_error *error)
{
    /* Bytes that were on the device stay in the file, damaged or not. */
    if (tail < atomic_load(&segment->synced))
        tail = atomic_load(&segment->synced);
    if (tail > SEGMENT_HEADER_BYTES)
        return vlog_adopt(&store->log, segment, tail, error);
    int32_t result = vlog_unlink(&store->log, segment, error);
    if (result == OORT_OK)
        vlog_release(&store->log, segment);
    return result;
}

static uint64_t replay_from(const struct checkpoint *checkpoint, const struct segment *segment)
{
    for (uint32_t i = 0; i < LOG_WRITERS; i++)
        if (atomic_load(&checkpoint->marks[i].sequence) == segment->sequence) {
            uint64_t applied = atomic_load(&checkpoint->marks[i].applied);
            return applied > SEGMENT_HEADER_BYTES ? applied : SEGMENT_HEADER_BYTES;
        }
    return SEGMENT_HEADER_BYTES;
}

/* Records of other segments may point into an unsealed segment.  Until its tail is known, all of it
 * may be read. */
static void open_tails(struct valuestore *store)
{
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        if (segment != NULL && atomic_load(&segment->state) != SEGMENT_SEALED)
            atomic_store(&segment->tail, segment->capacity);
    }
}

static uint64_t unsealed_segments(struct valuestore *store)
{
    uint64_t count = 0;
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        count += segment != NULL && atomic_load(&segment->state) != SEGMENT_SEALED;
    }
    return count;
}

static int32_t replay(struct recovery *work)
{
    struct valuestore *store = work->store;
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        if (segment == NULL || atomic_load(&segment->state) == SEGMENT_SEALED)
            continue;
        segment_damage damage;
        bool applied = (atomic_load(&store->checkpoint->segment_flags[number]) & SEGMENT_APPLIED) !=
                       0;
        uint64_t from = applied ? SEGMENT_HEADER_BYTES : replay_from(store->checkpoint, segment);
        int32_t result = segment_scan(segment, from, segment->capacity, true,
                                      applied ? visit_nothing : visit_replay, work, &damage);
        if (result != 0)
            return result;
        report_scan(store, segment, &damage);
        result = settle(store, segment, damage.tail, work->error);
        if (result != OORT_OK)
            return result;
        tell_done(work);
    }
    return OORT_OK;
}

/* A table of contents that is good enough for a rebuild, or NULL. */
static const toc_header *usable_toc(struct valuestore *store, const struct segment *segment,
                                    uint64_t *mapped)
{
    if (atomic_load(&segment->state) != SEGMENT_SEALED)
        return NULL;
    const toc_header *toc = toc_map(store->log.directory_fd, segment->sequence, segment->capacity,
                                    true, mapped);
    for (uint64_t i = 0; toc != NULL && i < toc->count; i++) {
        const toc_entry *row = &toc_entries(toc)[i];
        uint64_t offset = toc_offset(row);
        uint64_t size = toc_size(row);
        if (offset >= SEGMENT_HEADER_BYTES && size >= sizeof(record_header) &&
            offset + size <= toc->tail)
            continue;
        (void)munmap((void *)(uintptr_t)toc, *mapped);
        toc = NULL;
    }
    return toc;
}

static int32_t rebuild_from_toc(struct recovery *work, struct segment *segment,
                                const toc_header *toc)
{
    for (uint64_t i = 0; i < toc->count; i++) {
        const toc_entry *row = &toc_entries(toc)[i];
        uint32_t kind = toc_kind(row);
        if (i % INDEX_PREFETCH_BATCH == 0)
            valuestore_prefetch_entries(work->store, row, toc->count - i);
        uint8_t database = toc_database(row);
        uint64_t offset = toc_offset(row);
        uint64_t size = toc_size(row);
        uint64_t location = segment_location(segment->number, offset);
        if (kind == RECORD_FLUSH) {
            apply_flush(work, row->expiry_ms == RECORD_ALL_DATABASES, database, row->stamp);
            continue;
        }
        int32_t result = apply(work, row->hash, database, kind, row->stamp, location, size, false);
        if (result != OORT_OK)
            return result;
    }
    return OORT_OK;
}

static int32_t rebuild(struct recovery *work)
{
    struct valuestore *store = work->store;
    int32_t result = OORT_OK;
    for (uint32_t number = 0; number < SEGMENT_NUMBERS && result == OORT_OK; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        if (segment == NULL)
            continue;
        bool sealed = atomic_load(&segment->state) == SEGMENT_SEALED;
        uint64_t mapped = 0;
        const toc_header *toc = usable_toc(store, segment, &mapped);
        (void)madvise(segment->map, segment->capacity, MADV_SEQUENTIAL);
        if (toc != NULL) {
            segment_damage damage = {.damaged_bytes = toc->damaged_bytes,
                                     .damaged_runs = toc->damaged_bytes != 0};
            report_scan(store, segment, &damage);
            result = rebuild_from_toc(work, segment, toc);
            (void)munmap((void *)(uintptr_t)toc, mapped);
            /* Compaction removes the table of contents before the segment.  After a death in
             * between, a replay would take the segment for an active one.  The flag keeps its old
             * values dead. */
            (void)atomic_fetch_or(&store->checkpoint->segment_flags[number], SEGMENT_APPLIED);
        } else {
            segment_damage damage;
            result = segment_scan(segment, SEGMENT_HEADER_BYTES, segment->capacity, false,
                                  visit_rebuild, work, &damage);
            if (result == 0)
                report_scan(store, segment, &damage);
            if (result == 0 && sealed)
                result = segment_reopen(store->log.directory_fd, segment, work->error);
            if (result == 0)
                result = settle(store, segment, damage.tail, work->error);
        }
        if (atomic_load(&store->log.table[number]) == segment)
            (void)madvise(segment->map, segment->capacity, MADV_RANDOM);
        tell_done(work);
    }
    return result;
}

static int settle_entry(void *context, uint32_t slot, index_entry entry)
{
    struct recovery *work = context;
    struct checkpoint *checkpoint = work->store->checkpoint;
    uint8_t database = index_database(entry);
    bool dead = stamp_is_dead(index_stamp(entry));
    (void)slot;
    if (index_stamp(entry) < atomic_load(&checkpoint->flush_stamp[database])) {
        if (!dead)
            valuestore_account(work->store, index_location(entry), -1);
        return INDEX_ERASE;
    }
    /* A compaction that was killed had removed the segment, but had not erased the entry yet. */
    if (dead)
        return vlog_segment(&work->store->log, index_location(entry)) == NULL ? INDEX_ERASE
                                                                              : INDEX_KEEP;
    (void)atomic_fetch_add_explicit(&checkpoint->keys[database], 1, memory_order_relaxed);
    return INDEX_KEEP;
}

/* Erases the entries that flushes have made invisible and dead entries without a record, and counts
 * the keys. */
static void settle_index(struct recovery *work)
{
    struct checkpoint *checkpoint = work->store->checkpoint;
    for (int i = 0; i < OORT_DATABASES; i++) {
        if (work->flush_stamp[i] > atomic_load(&checkpoint->flush_stamp[i]))
            atomic_store(&checkpoint->flush_stamp[i], work->flush_stamp[i]);
        atomic_store(&checkpoint->keys[i], 0);
    }
    tell_stage(work, OORT_OPEN_COUNT, INDEX_SLOTS);
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++) {
        index_visit_slot(work->store->index, slot, settle_entry, work);
        tell_done(work);
    }
    if (work->highest_stamp > atomic_load(&checkpoint->highest_stamp))
        atomic_store(&checkpoint->highest_stamp, work->highest_stamp);
    for (uint32_t i = 0; i < LOG_WRITERS; i++) {
        atomic_store(&checkpoint->marks[i].applied, 0);
        atomic_store(&checkpoint->marks[i].sequence, 0);
    }
}

int32_t valuestore_recover(struct valuestore *store, bool alive, oort_open_progress *progress,
                           oort_error *error)
{
    struct recovery work = {.store = store, .progress = progress, .error = error};
    oort_session *session = valuestore_session(store, error);
    if (session == NULL)
        return error->code;
    work.session = value_session_of(session);
    /* No other thread uses the store yet, so the recovery holds every stripe without locking. */
    memset(work.session->locked, 0xff, sizeof work.session->locked);
    work.session->locked_single = LOCKED_SEVERAL;
    open_tails(store);
    work.highest_stamp = atomic_load(&store->checkpoint->highest_stamp);
    tell_stage(&work, alive ? OORT_OPEN_REPLAY : OORT_OPEN_REBUILD,
               alive ? unsealed_segments(store) : store->log.segment_count);
    int32_t result = alive ? replay(&work) : rebuild(&work);
    if (result == OORT_OK)
        settle_index(&work);
    work.session->locked_single = LOCKED_NONE;
    oort_session_close(session);
    store->keys_counted = result == OORT_OK;
    metric_add(&store->base.metrics.recovered_records, work.records);
    return result;
}
