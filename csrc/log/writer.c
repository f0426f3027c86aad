/*
 * writer.c: appending to the value log: writers, new segments, rolling over.  See vlog.h.
 *
 * Recovery relies on one rule: a segment is marked as applied before its writer's mark moves to the
 * next segment.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/error.h"
#include "log/vlog.h"

#define PENDING_SEALS_MAX 64u

int32_t vlog_writer_open(struct vlog *log, struct log_writer *writer, oort_error *error)
{
    memset(writer, 0, sizeof *writer);
    (void)pthread_mutex_lock(&log->mutex);
    for (uint32_t i = 0; i < LOG_WRITERS; i++) {
        if (log->marks_used[i] == 0) {
            log->marks_used[i] = 1;
            writer->mark = &log->checkpoint->marks[i];
            break;
        }
    }
    (void)pthread_mutex_unlock(&log->mutex);
    if (writer->mark == NULL)
        return oort_fail(error, OORT_ERR_NOMEM, 0, "more than %u sessions on one store",
                         LOG_WRITERS);
    writer->log = log;
    return OORT_OK;
}

/* The writer is done with the segment.  Seals it, or leaves it to the thread that seals. */
static void retire(struct vlog *log, struct segment *segment)
{
    OORT_ASSERT(atomic_load(&segment->state) == SEGMENT_ACTIVE, "a segment is retired once");
    (void)atomic_fetch_or(&log->checkpoint->segment_flags[segment->number], SEGMENT_APPLIED);
    atomic_store(&segment->state, SEGMENT_SEALING);
    (void)pthread_mutex_lock(&log->mutex);
    bool many = ++log->pending_seals > PENDING_SEALS_MAX;
    (void)pthread_mutex_unlock(&log->mutex);
    /* Too many segments wait for the sealing thread, so the writers help. */
    if (many || !atomic_load(&log->seal_behind)) {
        oort_error error;
        (void)vlog_seal_pending(log,
                                &error); /* a full disk is tried again, other errors are noted */
    }
}

void vlog_writer_close(struct log_writer *writer)
{
    struct vlog *log = writer->log;
    if (writer->active != NULL) {
        retire(log, writer->active);
        writer->active = NULL;
        atomic_store(&writer->mark->applied, 0);
        atomic_store(&writer->mark->sequence, 0);
    }
    (void)pthread_mutex_lock(&log->mutex);
    log->marks_used[writer->mark - log->checkpoint->marks] = 0;
    (void)pthread_mutex_unlock(&log->mutex);
}

static int32_t claim_number(struct vlog *log, uint32_t *number, uint64_t *sequence,
                            oort_error *error)
{
    /* Number 0xffff is never used, so a location of all ones is invalid. */
    for (uint32_t tried = 0; tried < SEGMENT_NUMBERS - 1; tried++) {
        uint32_t candidate = (log->next_number + tried) % (SEGMENT_NUMBERS - 1);
        if (atomic_load(&log->table[candidate]) == NULL &&
            (log->standby == NULL || log->standby->number != candidate)) {
            *number = candidate;
            *sequence = log->next_sequence++;
            log->next_number = candidate + 1;
            return OORT_OK;
        }
    }
    return oort_fail(
        error, OORT_ERR_FULL, 0,
        "the log has %u segments, which is the limit; use larger segments or less data",
        SEGMENT_NUMBERS - 1);
}

/* Whether the disk has room for a segment and still for one of compaction's after it.  Without the
 * room for compaction no space could ever be given back. */
static bool has_room(const struct vlog *log, uint64_t capacity)
{
    struct statvfs status;
    if (fstatvfs(log->directory_fd, &status) != 0)
        return true; /* preallocation will report the cause */
    uint64_t left = capacity > log->segment_bytes ? log->low_bytes : 0;
    if (left < log->segment_bytes)
        left = log->segment_bytes;
    uint64_t unit = status.f_frsize ? status.f_frsize : status.f_bsize;
    return (uint64_t)status.f_bavail * unit >= capacity + left;
}

/* Makes a new segment under the mutex, because nothing else reserves its number while the file is
 * made. vlog_prepare makes segments ahead of time, so that this rarely happens on the data path. */
static struct segment *make_segment(struct vlog *log, uint64_t capacity, bool zeroed,
                                    oort_error *error)
{
    uint32_t number = 0;
    uint64_t sequence = 0;
    if (claim_number(log, &number, &sequence, error) != OORT_OK)
        return NULL;
    return segment_create(log->directory_fd, sequence, number, capacity, log->store_id, zeroed,
                          error);
}

static void enlist(struct vlog *log, struct segment *segment)
{
    OORT_ASSERT(atomic_load(&segment->state) == SEGMENT_ACTIVE, "a new segment is active");
    OORT_ASSERT(atomic_load(&log->table[segment->number]) == NULL, "a number has one segment");
    atomic_store(&log->checkpoint->segment_flags[segment->number], 0);
    atomic_store(&log->checkpoint->live_bytes[segment->number], 0);
    log->open_segments[log->open_count++] = segment;
    log->segment_count++;
    atomic_store(&log->directory_dirty, true);
    atomic_store_explicit(&log->table[segment->number], segment, memory_order_release);
    atomic_store(&log->bases[segment->number], segment->map);
}

static struct segment *take_segment(struct log_writer *writer, uint64_t capacity, oort_error *error)
{
    struct vlog *log = writer->log;
    struct segment *segment = NULL;
    bool made = false;
    (void)pthread_mutex_lock(&log->mutex);
    if (log->open_count == sizeof log->open_segments / sizeof *log->open_segments) {
        (void)oort_fail(error, OORT_ERR_FULL, 0, "too many unsealed segments");
    } else if (log->standby != NULL && log->standby->capacity == capacity) {
        segment = log->standby;
        log->standby = NULL;
    } else if (!writer->compacts && !has_room(log, capacity)) {
        (void)oort_fail(error, OORT_ERR_FULL, ENOSPC,
                        "%s has no room for a segment of %" PRIu64 " bytes; free disk space",
                        log->directory, capacity);
    } else {
        segment = make_segment(log, capacity, false, error);
        made = true;
    }
    if (segment != NULL)
        enlist(log, segment);
    (void)pthread_mutex_unlock(&log->mutex);
    if (made && log->segment_made != NULL)
        log->segment_made(log->context);
    return segment;
}

int32_t vlog_prepare(struct vlog *log, oort_error *error)
{
    int32_t result = OORT_OK;
    uint32_t number = 0;
    uint64_t sequence = 0;
    (void)pthread_mutex_lock(&log->mutex);
    /* Without writers no segment is needed.  But writing zeros takes long, so the first writer
     * should find a zeroed segment. */
    bool needed = log->standby == NULL && (log->open_count != 0 || atomic_load(&log->zeroed)) &&
                  has_room(log, log->segment_bytes);
    if (needed)
        result = claim_number(log, &number, &sequence, error);
    (void)pthread_mutex_unlock(&log->mutex);
    if (!needed || result != OORT_OK)
        return result;
    /* No other thread prepares segments.  A writer may claim the same number meanwhile; see `taken`
     * below. */
    struct segment *made = segment_create(log->directory_fd, sequence, number, log->segment_bytes,
                                          log->store_id, atomic_load(&log->zeroed), error);
    if (made == NULL)
        return error->code;
    (void)pthread_mutex_lock(&log->mutex);
    bool taken = atomic_load(&log->table[number]) != NULL;
    if (!taken)
        log->standby = made;
    (void)pthread_mutex_unlock(&log->mutex);
    if (taken) {
        (void)segment_unlink(log->directory_fd, made->sequence);
        segment_free(made);
    }
    if (log->segment_made != NULL)
        log->segment_made(log->context);
    return OORT_OK;
}

static int32_t roll(struct log_writer *writer, oort_error *error)
{
    struct vlog *log = writer->log;
    struct segment *next = take_segment(writer, log->segment_bytes, error);
    if (next == NULL)
        return error->code;
    if (writer->active != NULL)
        retire(log, writer->active);
    atomic_store(&writer->mark->applied, 0);
    atomic_store(&writer->mark->sequence, next->sequence);
    atomic_store(&writer->mark->applied, SEGMENT_HEADER_BYTES);
    writer->active = next;
    return OORT_OK;
}

int32_t vlog_reserve(struct log_writer *writer, uint64_t size, bool contiguous,
                     struct segment **segment, uint64_t *offset, oort_error *error)
{
    struct vlog *log = writer->log;
    int32_t failed = atomic_load_explicit(&log->failed, memory_order_relaxed);
    if (failed != 0)
        return oort_fail(error, OORT_ERR_FAILED, 0,
                         "the log had an I/O error and takes no more writes; see the server log");
    if (size > log->segment_bytes - SEGMENT_HEADER_BYTES) {
        if (contiguous)
            return oort_fail(error, OORT_ERR_TOO_BIG, 0,
                             "a batch of %" PRIu64 " bytes is larger than a segment (%" PRIu64
                             " bytes)",
                             size, log->segment_bytes - SEGMENT_HEADER_BYTES);
        *segment = take_segment(writer, SEGMENT_HEADER_BYTES + size, error);
        *offset = SEGMENT_HEADER_BYTES;
        return *segment == NULL ? error->code : OORT_OK;
    }
    if (writer->active == NULL ||
        writer->active->capacity -
                atomic_load_explicit(&writer->active->tail, memory_order_relaxed) <
            size) {
        int32_t result = roll(writer, error);
        if (result != OORT_OK)
            return result;
    }
    *segment = writer->active;
    *offset = atomic_load_explicit(&writer->active->tail, memory_order_relaxed);
    return OORT_OK;
}

void vlog_append(struct log_writer *writer, struct segment *segment, uint64_t size)
{
    uint64_t tail = atomic_load_explicit(&segment->tail, memory_order_relaxed);
    uint32_t tick = atomic_load_explicit(&writer->log->tick, memory_order_relaxed);
    OORT_ASSERT(segment == writer->active || tail == SEGMENT_HEADER_BYTES,
                "a writer appends to its own active segment, or the only record of a large one");
    OORT_ASSERT(atomic_load_explicit(&segment->state, memory_order_relaxed) == SEGMENT_ACTIVE,
                "records are appended to active segments only");
    OORT_ASSERT(size % RECORD_ALIGN == 0 && size <= segment->capacity - tail,
                "the tail is aligned and not beyond the capacity");
    if (tick != 0)
        for (uint64_t at = tail; at < tail + size; at += SEGMENT_EXTENT_BYTES)
            segment_touch(segment, at, tick);
    atomic_store_explicit(&segment->tail, tail + size, memory_order_release);
}

void vlog_applied(struct log_writer *writer, struct segment *segment)
{
    if (segment == writer->active)
        atomic_store_explicit(&writer->mark->applied,
                              atomic_load_explicit(&segment->tail, memory_order_relaxed),
                              memory_order_release);
    else
        retire(writer->log, segment);
}
