/*
 * vlog.c: the set of segments: appending, rolling over, group commit, sealing.  See vlog.h.
 *
 * Recovery relies on one rule: a segment is marked as applied before its writer's mark moves to the
 * next segment.
 */
#include "log/vlog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define PENDING_SEALS_MAX 64u

int32_t vlog_open(struct vlog *log, const char *directory, uint64_t segment_bytes,
                  struct events *events, oort_error *error)
{
    memset(log, 0, sizeof *log);
    log->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (log->directory_fd < 0)
        return oort_fail(error, OORT_ERR_IO, errno, "data directory %s: cannot open it: %s",
                         directory, strerror(errno));
    log->directory = strdup(directory);
    log->table = calloc(SEGMENT_NUMBERS, sizeof *log->table);
    log->bases = calloc(SEGMENT_NUMBERS, sizeof *log->bases);
    if (log->directory == NULL || log->table == NULL || log->bases == NULL) {
        (void)close(log->directory_fd);
        free(log->directory);
        free((void *)log->table);
        free((void *)log->bases);
        return oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory for the table of segments");
    }
    log->segment_bytes = segment_bytes;
    log->events = events;
    log->next_sequence = 1;
    (void)pthread_mutex_init(&log->mutex, NULL);
    (void)pthread_mutex_init(&log->sync_mutex, NULL);
    return OORT_OK;
}

static int by_sequence(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static bool file_exists(const struct vlog *log, uint64_t sequence, const char *suffix)
{
    char name[40];
    (void)snprintf(name, sizeof name, "%016" PRIx64 ".%s", sequence, suffix);
    return faccessat(log->directory_fd, name, F_OK, 0) == 0;
}

/* Compaction removes a table of contents before its segment, so here another program has removed
 * the segment.  No new segment may get its sequence, because the table would then belong to it. */
static void check_table(struct vlog *log, const char *name)
{
    uint64_t sequence = 0;
    int end = 0;
    if (sscanf(name, "%16" SCNx64 ".toc%n", &sequence, &end) != 1 || end != 20 ||
        name[end] != '\0' || file_exists(log, sequence, "log"))
        return;
    if (sequence >= log->next_sequence)
        log->next_sequence = sequence + 1;
    events_post(log->events, EVENT_ERROR, OORT_EVENT_DAMAGE, sequence,
                "segment %016" PRIx64 ".log is missing, and so are its records: restore it from"
                " a copy, or remove %016" PRIx64 ".toc",
                sequence, sequence);
}

/* The sequences of all segment files, ascending.  Removes the files of interrupted writes. */
static int32_t list_segments(struct vlog *log, uint64_t **out, size_t *count, oort_error *error)
{
    uint64_t *sequences = NULL;
    size_t used = 0, capacity = 0;
    int fd = dup(log->directory_fd);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (listing == NULL) {
        if (fd >= 0)
            (void)close(fd);
        return oort_fail(error, OORT_ERR_IO, errno, "data directory %s: cannot list it: %s",
                         log->directory, strerror(errno));
    }
    rewinddir(listing);
    for (struct dirent *file; (file = readdir(listing)) != NULL;) {
        uint64_t sequence = 0;
        int end = 0;
        if (sscanf(file->d_name, "%16" SCNx64 ".toc.new%n", &sequence, &end) == 1 && end == 24 &&
            file->d_name[end] == '\0') {
            (void)unlinkat(log->directory_fd, file->d_name, 0);
            continue;
        }
        end = 0;
        if (sscanf(file->d_name, "%16" SCNx64 ".log%n", &sequence, &end) != 1 || end != 20 ||
            file->d_name[end] != '\0') {
            check_table(log, file->d_name);
            continue;
        }
        if (used == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            uint64_t *larger = realloc(sequences, capacity * sizeof *larger);
            if (larger == NULL) {
                free(sequences);
                (void)closedir(listing);
                return oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory to list the segments");
            }
            sequences = larger;
        }
        sequences[used++] = sequence;
    }
    (void)closedir(listing);
    if (used != 0)
        qsort(sequences, used, sizeof *sequences, by_sequence);
    *out = sequences;
    *count = used;
    return OORT_OK;
}

/* A segment that is all zero and was never sealed holds nothing that was acknowledged as durable:
 * power failed while the segment was made.  Such a segment is removed.  A segment with other damage
 * stays. */
static bool never_written(struct vlog *log, uint64_t sequence)
{
    char name[40];
    uint64_t words[8192];
    off_t offset = 0;
    ssize_t got;
    (void)snprintf(name, sizeof name, "%016" PRIx64 ".log", sequence);
    int fd = openat(log->directory_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    do {
        memset(words, 0, sizeof words);
        got = pread(fd, words, sizeof words, offset);
        offset += got;
        for (size_t i = 0; got > 0 && i < sizeof words / sizeof *words; i++)
            got = words[i] != 0 ? -1 : got;
    } while (got > 0);
    (void)close(fd);
    return got == 0 && !file_exists(log, sequence, "toc");
}

int32_t vlog_load(struct vlog *log, bool adopt, oort_error *error)
{
    uint64_t *sequences = NULL;
    size_t count = 0;
    const struct segment *newest = NULL;
    int32_t result = list_segments(log, &sequences, &count, error);
    for (size_t i = 0; result == OORT_OK && i < count; i++) {
        if (sequences[i] >= log->next_sequence)
            log->next_sequence = sequences[i] + 1;
        struct segment *segment = segment_load(log->directory_fd, sequences[i], log->store_id,
                                               adopt, error);
        if (segment == NULL) {
            if (error->code != OORT_ERR_DAMAGED) {
                result = error->code;
            } else if (never_written(log, sequences[i])) {
                result = segment_unlink(log->directory_fd, sequences[i]);
            } else {
                events_post(log->events, EVENT_ERROR, OORT_EVENT_DAMAGE, 0,
                            "%s; it is left alone and none of its records are served", error->text);
            }
            continue;
        }
        if (adopt) {
            memcpy(log->store_id, ((const segment_header *)(const void *)segment->map)->store_id,
                   sizeof log->store_id);
            adopt = false;
        }
        if (atomic_load(&log->table[segment->number]) != NULL) {
            result = oort_fail(error, OORT_ERR_DAMAGED, 0,
                               "segments %016" PRIx64 " and %016" PRIx64
                               " have the same number: one was copied in; move it away",
                               atomic_load(&log->table[segment->number])->sequence, sequences[i]);
            segment_free(segment);
            continue;
        }
        atomic_store(&log->table[segment->number], segment);
        atomic_store(&log->bases[segment->number], segment->map);
        log->segment_count++;
        newest = segment;
    }
    free(sequences);
    /* Continue after the newest segment.  The numbers of missing segments stay reserved for
     * them. */
    if (newest != NULL)
        log->next_number = (uint32_t)((newest->number + (log->next_sequence - newest->sequence)) %
                                      (SEGMENT_NUMBERS - 1));
    return result;
}

void vlog_skip_number(struct vlog *log, uint32_t number)
{
    if (number < log->next_number)
        return;
    log->next_sequence += number + 1 - log->next_number;
    log->next_number = number + 1;
}

void vlog_close(struct vlog *log)
{
    if (log->standby != NULL) {
        (void)segment_unlink(log->directory_fd, log->standby->sequence);
        segment_free(log->standby);
    }
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&log->table[number]);
        if (segment != NULL)
            segment_free(segment);
    }
    while (log->released != NULL) {
        struct segment *segment = log->released;
        log->released = segment->next_released;
        segment_free(segment);
    }
    free((void *)log->table);
    free((void *)log->bases);
    free(log->directory);
    (void)close(log->directory_fd);
    (void)pthread_mutex_destroy(&log->mutex);
    (void)pthread_mutex_destroy(&log->sync_mutex);
}

uint32_t vlog_manifest(struct vlog *log)
{
    uint32_t sum = 0;
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&log->table[number]);
        if (segment == NULL)
            continue;
        uint64_t fact[2] = {segment->sequence, atomic_load(&segment->tail)};
        sum = oort_crc32c(sum, fact, sizeof fact);
    }
    return sum;
}

/* ---- writers ---------------------------------------------------------------- */

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

/* ---- group commit ------------------------------------------------------------- */

void vlog_fail(struct vlog *log, const oort_error *error)
{
    int32_t none = 0;
    if (!atomic_compare_exchange_strong(&log->failed, &none, error->code))
        return;
    /* The mapping and the disk may now differ, so no fast restart may trust the index. */
    if (log->nonce_path != NULL)
        (void)unlink(log->nonce_path);
    events_post(log->events, EVENT_ERROR, OORT_EVENT_FAILED, 0,
                "%s; nothing more is acknowledged: repair the disk and restart oortd", error->text);
}

static int32_t sync_all(struct vlog *log, oort_error *error)
{
    struct segment *segments[2 * LOG_WRITERS];
    uint32_t count = 0;
    int32_t result = OORT_OK;
    bool worked = false;
    int64_t began_ns = clock_monotonic_ns();
    if (atomic_load(&log->failed) != 0)
        return oort_fail(error, OORT_ERR_FAILED, 0, "the log had an I/O error earlier");
    bool directory = atomic_exchange(&log->directory_dirty, false);
    (void)pthread_mutex_lock(&log->mutex);
    for (uint32_t i = 0; i < log->open_count; i++) {
        struct segment *segment = log->open_segments[i];
        if (atomic_load(&segment->tail) != atomic_load(&segment->synced)) {
            OORT_ASSERT(atomic_load(&segment->state) != SEGMENT_SEALED,
                        "an open segment with unsynced bytes is not sealed");
            (void)atomic_fetch_add(&segment->syncing, 1);
            segments[count++] = segment;
        }
    }
    (void)pthread_mutex_unlock(&log->mutex);
    /* The list is in order of creation, so a segment becomes durable before its successor. */
    for (uint32_t i = 0; i < count; i++) {
        if (result == OORT_OK)
            result = segment_sync(segments[i], error);
        worked = true;
        (void)atomic_fetch_sub(&segments[i]->syncing, 1);
    }
    if (result == OORT_OK && directory && fsync(log->directory_fd) != 0)
        result = oort_fail(error, OORT_ERR_IO, errno, "data directory %s: cannot sync it: %s",
                           log->directory, strerror(errno));
    if (result != OORT_OK) {
        vlog_fail(log, error);
        return result;
    }
    if (worked || directory) {
        uint64_t took_ns = (uint64_t)(clock_monotonic_ns() - began_ns);
        if (log->sync_time != NULL)
            histogram_add(log->sync_time, took_ns, 1, took_ns);
        (void)atomic_fetch_add(&log->rounds, 1);
        atomic_store(&log->last_sync_ms, clock_wall_ms());
    }
    return OORT_OK;
}

/* Runs one at a time.  A caller that finds nothing to sync must not return before the sync that is
 * running has ended. */
int32_t vlog_sync(struct vlog *log, oort_error *error)
{
    (void)pthread_mutex_lock(&log->sync_mutex);
    int32_t result = sync_all(log, error);
    (void)pthread_mutex_unlock(&log->sync_mutex);
    return result;
}

uint64_t vlog_unsynced(struct vlog *log)
{
    uint64_t sum = 0;
    (void)pthread_mutex_lock(&log->mutex);
    for (uint32_t i = 0; i < log->open_count; i++) {
        /* `synced` is read first.  It is never larger than a tail that is read later. */
        uint64_t synced = atomic_load(&log->open_segments[i]->synced);
        uint64_t tail = atomic_load(&log->open_segments[i]->tail);
        OORT_ASSERT(synced <= tail, "synced <= tail");
        sum += tail - synced;
    }
    (void)pthread_mutex_unlock(&log->mutex);
    return sum;
}

/* ---- sealing and removing -------------------------------------------------------- */

static void delist(struct vlog *log, struct segment *segment)
{
    for (uint32_t i = 0; i < log->open_count; i++) {
        if (log->open_segments[i] == segment) {
            memmove(&log->open_segments[i], &log->open_segments[i + 1],
                    (log->open_count - i - 1) * sizeof *log->open_segments);
            log->open_count--;
            return;
        }
    }
}

static int32_t seal(struct vlog *log, struct segment *segment, oort_error *error)
{
    /* The kernel reports a failed write once.  The thread that gets the report must mark the log as
     * failed before another thread can sync. */
    (void)pthread_mutex_lock(&log->sync_mutex);
    int32_t result = segment_cut(segment, error);
    if (result == OORT_ERR_IO)
        vlog_fail(log, error);
    (void)pthread_mutex_unlock(&log->sync_mutex);
    if (result == OORT_OK) {
        result = segment_seal(log->directory_fd, segment, error);
        if (result == OORT_ERR_IO)
            vlog_fail(log, error);
    }
    if (result == OORT_OK && segment->quarantined)
        events_post(log->events, EVENT_ERROR, OORT_EVENT_DAMAGE, segment->sequence,
                    "segment %016" PRIx64 ".log was damaged before it was sealed; it will not be "
                    "compacted: keep it until its keys are restored",
                    segment->sequence);
    return result;
}

int32_t vlog_seal_pending(struct vlog *log, oort_error *error)
{
    int32_t sealed = 0;
    for (;;) {
        struct segment *segment = NULL;
        (void)pthread_mutex_lock(&log->mutex);
        for (uint32_t i = 0; i < log->open_count && log->pending_seals != 0; i++) {
            if (atomic_load(&log->open_segments[i]->state) == SEGMENT_SEALING) {
                segment = log->open_segments[i];
                atomic_store(&segment->state, SEGMENT_CLOSING);
                /* Once sealed, the segment may be compacted at any moment. */
                segment_pin(segment);
                log->pending_seals--;
                break;
            }
        }
        (void)pthread_mutex_unlock(&log->mutex);
        if (segment == NULL)
            return sealed;
        int32_t result = seal(log, segment, error);
        if (result != OORT_OK) {
            /* The segment stays as it is: readers use it, and a scan can recover it.  A full disk
             * may get room. */
            (void)pthread_mutex_lock(&log->mutex);
            atomic_store(&segment->state, SEGMENT_SEALING);
            log->pending_seals++;
            segment_unpin(segment);
            (void)pthread_mutex_unlock(&log->mutex);
            return result;
        }
        (void)pthread_mutex_lock(&log->mutex);
        delist(log, segment);
        (void)pthread_mutex_unlock(&log->mutex);
        while (atomic_load(&segment->syncing) != 0)
            (void)usleep(500);
        (void)close(segment->fd);
        segment->fd = -1;
        segment_unpin(segment);
        sealed++;
    }
}

int32_t vlog_unlink(struct vlog *log, struct segment *segment, oort_error *error)
{
    int32_t result = segment_unlink(log->directory_fd, segment->sequence);
    if (result != OORT_OK)
        return oort_fail(error, result, errno, "segment %016" PRIx64 ".log: cannot remove it: %s",
                         segment->sequence, strerror(errno));
    atomic_store(&log->directory_dirty, true);
    return OORT_OK;
}

void vlog_release(struct vlog *log, struct segment *segment)
{
    (void)pthread_mutex_lock(&log->mutex);
    OORT_ASSERT(atomic_load(&log->table[segment->number]) == segment, "a segment is released once");
    atomic_store(&log->table[segment->number], NULL);
    atomic_store(&log->bases[segment->number], NULL);
    atomic_store(&log->checkpoint->live_bytes[segment->number], 0);
    atomic_store(&log->checkpoint->segment_flags[segment->number], 0);
    log->segment_count--;
    segment->next_released = log->released;
    log->released = segment;
    (void)pthread_mutex_unlock(&log->mutex);
    vlog_reap(log);
}

void vlog_reap(struct vlog *log)
{
    (void)pthread_mutex_lock(&log->mutex);
    for (struct segment **link = &log->released; *link != NULL;) {
        struct segment *segment = *link;
        if (atomic_load(&segment->pins) == 0) {
            *link = segment->next_released;
            segment_free(segment);
        } else {
            link = &segment->next_released;
        }
    }
    (void)pthread_mutex_unlock(&log->mutex);
}

int32_t vlog_adopt(struct vlog *log, struct segment *segment, uint64_t tail, oort_error *error)
{
    OORT_ASSERT(tail >= SEGMENT_HEADER_BYTES && tail <= segment->capacity,
                "the tail lies inside the segment");
    atomic_store(&segment->tail, tail);
    if (atomic_load(&segment->synced) > tail)
        atomic_store(&segment->synced, tail);
    /* An unsealed segment may hold any value.  Stamp 0 keeps compaction from dropping tombstones
     * that hide values in it. */
    atomic_store(&segment->min_stamp, 0);
    (void)atomic_fetch_or(&log->checkpoint->segment_flags[segment->number], SEGMENT_APPLIED);
    atomic_store(&segment->state, SEGMENT_SEALING);
    if (log->open_count < LOG_WRITERS) {
        (void)pthread_mutex_lock(&log->mutex);
        log->open_segments[log->open_count++] = segment;
        log->pending_seals++;
        (void)pthread_mutex_unlock(&log->mutex);
        return OORT_OK;
    }
    int32_t result = seal(log, segment, error);
    if (result == OORT_OK) {
        (void)close(segment->fd);
        segment->fd = -1;
    }
    return result;
}
