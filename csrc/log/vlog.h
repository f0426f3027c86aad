/*
 * vlog.h: the value log: the set of segments, appending, group commit.
 *
 * Each writer (one thread) appends to its own active segment, so no record has a gap before it.  A
 * record larger than a segment gets its own segment.  Appending copies the record into the mapping.
 * From then on the record survives the death of the process; vlog_sync makes it survive the death
 * of the machine.
 *
 * The checkpoint, which lies in the index file, holds an offset for each active segment: the index
 * knows all records below it.  Recovery replays the records from that offset on.
 */
#ifndef OORT_VLOG_H
#define OORT_VLOG_H

#include <pthread.h>

#include "base/events.h"
#include "base/histogram.h"
#include "log/segment.h"

#define LOG_WRITERS 256u
#define CHECKPOINT_MAGIC UINT64_C(0x3254504b43545254)

enum checkpoint_segment_flag {
    SEGMENT_APPLIED = 1,    /* the index knows all its records */
    SEGMENT_HAS_TARGETS = 2 /* expiry records may point at values in it */
};

struct log_mark {
    _Atomic uint64_t sequence; /* 0: no active segment */
    _Atomic uint64_t applied;  /* offset; 0: nothing in this segment */
};

/* Lies in the owner's bytes of the index file. */
struct checkpoint {
    uint64_t magic;
    uint8_t store_id[16];
    uint64_t nonce[2]; /* a file on a tmpfs has it too while the store is open */
    char boot_id[40];
    uint64_t device, inode;
    uint32_t clean;    /* 1: closed cleanly */
    uint32_t manifest; /* if clean: CRC32C over (sequence, tail) of every segment */
    _Atomic uint64_t highest_stamp;
    _Atomic uint64_t flush_stamp[OORT_DATABASES];
    _Atomic int64_t keys[OORT_DATABASES];
    struct log_mark marks[LOG_WRITERS];
    _Atomic uint8_t segment_flags[SEGMENT_NUMBERS];
    _Atomic int64_t live_bytes[SEGMENT_NUMBERS]; /* a guide for compaction, inexact after a kill */
};

struct vlog {
    char *directory;
    int directory_fd;
    uint8_t store_id[16];
    uint64_t segment_bytes;
    struct checkpoint *checkpoint;
    struct events *events;
    char *nonce_path;   /* removed at the first I/O error */
    uint64_t low_bytes; /* free bytes that a large value must leave */
    /* Called after a segment was made, because that uses disk space.  No mutex is held. */
    void (*segment_made)(void *context);
    void *context;

    pthread_mutex_t sync_mutex; /* covers a file's sync and the handling of its result */
    pthread_mutex_t mutex;      /* covers the fields up to the next blank line */
    uint64_t next_sequence;
    uint32_t next_number;
    uint32_t segment_count;
    struct segment *standby; /* prepared for the next writer that needs one */
    struct segment *open_segments[2 * LOG_WRITERS];
    uint32_t open_count;
    uint32_t pending_seals;
    struct segment *released; /* without a number, but some of their values are still pinned */
    uint8_t marks_used[LOG_WRITERS];

    struct segment *_Atomic *table; /* by number */
    uint8_t *_Atomic
        *bases;             /* by number: the mapping, for vlog_prefetch only; may be out of date */
    _Atomic uint32_t tick;  /* residency clock, 0: all bytes count as resident */
    _Atomic int32_t failed; /* an oort_status, never reset */
    _Atomic bool directory_dirty;
    _Atomic bool zeroed;         /* write zeros to prepared segments */
    _Atomic bool seal_behind;    /* a thread seals, otherwise the writer does */
    _Atomic uint64_t rounds;     /* syncs that had something to sync */
    struct histogram *sync_time; /* of those syncs; NULL: not measured */
    _Atomic int64_t last_sync_ms;
};

struct log_writer {
    struct vlog *log;
    struct segment *active;
    struct log_mark *mark;
    bool compacts; /* may use the last disk space, because compaction gives back more */
};

/* Opens the directory and loads no segments yet. */
int32_t vlog_open(struct vlog *log, const char *directory, uint64_t segment_bytes,
                  struct events *events, oort_error *error);
/* Maps every segment file.  adopt: takes store_id from the first segment. */
int32_t vlog_load(struct vlog *log, bool adopt, oort_error *error);
/* Call after vlog_load and before any writer opens.  The segment with this number is missing.  No
 * other segment gets its number or its sequence, so the segment can be put back. */
void vlog_skip_number(struct vlog *log, uint32_t number);
void vlog_close(struct vlog *log);
/* A checksum over the set of segments and their lengths. */
uint32_t vlog_manifest(struct vlog *log);

static inline struct segment *vlog_segment(struct vlog *log, uint64_t location)
{
    return atomic_load_explicit(&log->table[location_number(location)], memory_order_acquire);
}

/* The location may be out of date, because prefetching is only a hint. */
static inline void vlog_prefetch(struct vlog *log, uint64_t location)
{
    const uint8_t *base = atomic_load_explicit(&log->bases[location_number(location)],
                                               memory_order_relaxed);
    if (base == NULL)
        return;
    __builtin_prefetch(base + location_offset(location));
    __builtin_prefetch(base + location_offset(location) + 64);
}

int32_t vlog_writer_open(struct vlog *log, struct log_writer *writer, oort_error *error);
/* Hands the writer's segment on to be sealed. */
void vlog_writer_close(struct log_writer *writer);

/* Reserves room for a record (or a batch) of size bytes and returns its position.  contiguous: the
 * bytes must not get a segment of their own (a batch). */
int32_t vlog_reserve(struct log_writer *writer, uint64_t size, bool contiguous,
                     struct segment **segment, uint64_t *offset, oort_error *error);
/* The bytes have been written, so the segment's tail moves on. */
void vlog_append(struct log_writer *writer, struct segment *segment, uint64_t size);
/* The index knows everything up to the segment's tail. */
void vlog_applied(struct log_writer *writer, struct segment *segment);

/* Makes everything appended so far durable.  Any failure is final. */
int32_t vlog_sync(struct vlog *log, oort_error *error);
void vlog_fail(struct vlog *log, const oort_error *error);
uint64_t vlog_unsynced(struct vlog *log);

/* Seals the full segments.  Returns their number, or an error. */
int32_t vlog_seal_pending(struct vlog *log, oort_error *error);
/* Prepares the standby segment. */
int32_t vlog_prepare(struct vlog *log, oort_error *error);
/* Removes the files of a sealed segment.  vlog_release gives its memory back. */
int32_t vlog_unlink(struct vlog *log, struct segment *segment, oort_error *error);
/* Gives up an unlinked segment to which no index entry points.  Its number is free at once.  Its
 * memory is freed when none of its values is pinned (vlog_reap). */
void vlog_release(struct vlog *log, struct segment *segment);
void vlog_reap(struct vlog *log);
/* Takes over an unsealed segment that was found at open and whose tail is now known.  It will be
 * sealed. */
int32_t vlog_adopt(struct vlog *log, struct segment *segment, uint64_t tail, oort_error *error);

#endif
