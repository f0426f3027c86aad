/*
 * vlog.h: the value log: the set of segments, appending, group commit.
 *
 * Each writer (one thread) appends to an active segment of its own, so that no
 * record has a hole before it.  Records larger than a segment get a segment of
 * their own.  Appending is a copy into the mapping: once made, it survives the
 * death of the process; vlog_sync makes it survive the machine's.
 *
 * The checkpoint (in the index file) says for each active segment up to which
 * offset the index knows its records; recovery replays from there.
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
    SEGMENT_HAS_TARGETS = 2 /* some expiry record may point at a value in it */
};

struct log_mark {
    _Atomic uint64_t sequence; /* 0: no active segment */
    _Atomic uint64_t applied;  /* offset; 0: nothing in this segment */
};

/* Lives in the index file's owner area. */
struct checkpoint {
    uint64_t magic;
    uint8_t store_id[16];
    uint64_t nonce[2]; /* also in a file on tmpfs while the store is open */
    char boot_id[40];
    uint64_t device, inode;
    uint32_t clean;    /* 1: closed in order; manifest says over which segments */
    uint32_t manifest; /* CRC32C over (sequence, tail) of every segment */
    _Atomic uint64_t highest_stamp;
    _Atomic uint64_t flush_stamp[OORT_DATABASES];
    _Atomic int64_t keys[OORT_DATABASES];
    struct log_mark marks[LOG_WRITERS];
    _Atomic uint8_t segment_flags[SEGMENT_NUMBERS];
    _Atomic int64_t
        live_bytes[SEGMENT_NUMBERS]; /* a guide for compaction, not exact after a kill */
};

struct vlog {
    char *directory;
    int directory_fd;
    uint8_t store_id[16];
    uint64_t segment_bytes;
    struct checkpoint *checkpoint;
    struct events *events;
    char *nonce_path;   /* removed at the first I/O error */
    uint64_t low_bytes; /* the disk's watermark: a large value may not take what is below it */
    /* Called after a segment was made, which is when the disk gets fuller; no mutex is held. */
    void (*segment_made)(void *context);
    void *context;

    pthread_mutex_t sync_mutex; /* a file's sync and what follows from its success or failure */
    pthread_mutex_t mutex;      /* what follows, up to the next blank line */
    uint64_t next_sequence;
    uint32_t next_number;
    uint32_t segment_count;
    struct segment *standby; /* prepared for the next writer that needs one */
    struct segment *open_segments[2 * LOG_WRITERS];
    uint32_t open_count;
    uint32_t pending_seals;
    struct segment *released; /* unreachable, but some value in it is still being sent */
    uint8_t marks_used[LOG_WRITERS];

    struct segment *_Atomic *table; /* SEGMENT_NUMBERS */
    uint8_t *_Atomic *bases;        /* their mappings, for vlog_prefetch only: may be stale */
    _Atomic uint32_t tick;          /* residency clock, 0: believe everything resident */
    _Atomic int32_t failed;         /* sticky */
    _Atomic bool directory_dirty;
    _Atomic bool zeroed;         /* prepare segments by writing zeros */
    _Atomic bool seal_behind;    /* a thread seals; otherwise the writer does */
    _Atomic uint64_t rounds;     /* syncs that did something */
    struct histogram *sync_time; /* of those; NULL: nobody asks */
    _Atomic int64_t last_sync_ms;
};

struct log_writer {
    struct vlog *log;
    struct segment *active;
    struct log_mark *mark;
    bool compacts; /* may take the last of the disk, as it gives back more */
};

/* Open the directory; load nothing yet. */
int32_t vlog_open(struct vlog *log, const char *directory, uint64_t segment_bytes,
                  struct events *events, oort_error *error);
/* Map every segment file; store_id is taken from the first when `adopt`. */
int32_t vlog_load(struct vlog *log, bool adopt, oort_error *error);
/* After vlog_load, before any writer: the segment that was in this number is missing.  Neither its number nor
 * its sequence is to be another's, so that it can come back. */
void vlog_skip_number(struct vlog *log, uint32_t number);
void vlog_close(struct vlog *log);
/* The checksum of which segments there are and how long each is. */
uint32_t vlog_manifest(struct vlog *log);

static inline struct segment *vlog_segment(struct vlog *log, uint64_t location)
{
    return atomic_load_explicit(&log->table[location_number(location)], memory_order_acquire);
}

/* A hint: the location may be out of date. */
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
/* Its segment is handed on to be sealed. */
void vlog_writer_close(struct log_writer *writer);

/* Room for a record (or a batch) of size bytes: where it goes.  contiguous: it must not get a
 * segment of its own (a batch). */
int32_t vlog_reserve(struct log_writer *writer, uint64_t size, bool contiguous,
                     struct segment **segment, uint64_t *offset, oort_error *error);
/* The bytes are there: the segment's tail moves on. */
void vlog_append(struct log_writer *writer, struct segment *segment, uint64_t size);
/* The index knows of everything up to the segment's tail. */
void vlog_applied(struct log_writer *writer, struct segment *segment);

/* Make everything appended so far durable. Any failure is final. */
int32_t vlog_sync(struct vlog *log, oort_error *error);
void vlog_fail(struct vlog *log, const oort_error *error);
uint64_t vlog_unsynced(struct vlog *log);

/* Seal what is full; returns how many it sealed, or an error. */
int32_t vlog_seal_pending(struct vlog *log, oort_error *error);
/* Prepare the standby segment. */
int32_t vlog_prepare(struct vlog *log, oort_error *error);
/* Remove a sealed segment's files; its memory goes when nothing can reach it any more (vlog_release). */
int32_t vlog_unlink(struct vlog *log, struct segment *segment, oort_error *error);
/* Give up an unlinked segment that no index entry points into: its number is free at once, its memory
 * once no value in it is pinned (vlog_reap). */
void vlog_release(struct vlog *log, struct segment *segment);
void vlog_reap(struct vlog *log);
/* An unsealed segment found at open whose tail is now known: it will be sealed. */
int32_t vlog_adopt(struct vlog *log, struct segment *segment, uint64_t tail, oort_error *error);

#endif
