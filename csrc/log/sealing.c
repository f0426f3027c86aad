/*
 * sealing.c: the end of a segment's writing, and of the segment: sealing, removing, releasing.  See
 * vlog.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "log/vlog.h"

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
