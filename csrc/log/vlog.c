/*
 * vlog.c: the set of segments: opening and closing it, group commit.  See vlog.h; appending is in
 * writer.c, sealing and removing segments in sealing.c.
 */
#include "log/vlog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

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
