/*
 * segment.h: one file of the value log, mapped into memory.
 *
 * A segment is active (one writer appends to it), sealing (full, but its table of contents is not
 * written yet) or sealed (it never changes again).  This file covers the life of the file, scans,
 * and the test whether bytes can be read without waiting for the disk.  vlog.c appends records.
 *
 * A mapped page that cannot be read raises SIGBUS.  Readers therefore call segment_resident first,
 * and leave bytes that are not in memory to segment_fetch, which reports an I/O error as an error.
 */
#ifndef OORT_SEGMENT_H
#define OORT_SEGMENT_H

#include <stdatomic.h>

#include "base/assert.h"
#include "log/record.h"

#define SEGMENT_NUMBERS 65536u
#define SEGMENT_OFFSET_BITS 24 /* a location has so many bits of offset, in 8-byte units */
#define SEGMENT_BYTES_MAX (UINT64_C(1) << (SEGMENT_OFFSET_BITS + 3))
#define SEGMENT_EXTENT_BYTES (256u * 1024u) /* the unit of the residency clock */

enum segment_verdict { VERDICT_NONE = 0, VERDICT_WHOLE = 1, VERDICT_DAMAGED = 2 };

enum segment_state {
    SEGMENT_ACTIVE = 0,
    SEGMENT_SEALING = 1, /* waits for its table of contents */
    SEGMENT_CLOSING = 2, /* a thread is writing its table of contents */
    SEGMENT_SEALED = 3
};

struct segment {
    uint64_t sequence;
    uint32_t number;
    uint32_t seed;
    int fd; /* -1 once sealed */
    uint8_t *map;
    uint64_t capacity;       /* mapped bytes */
    uint64_t lost_bytes;     /* at load: the synced bytes that the file has lost at its end */
    _Atomic uint64_t tail;   /* end of the records */
    _Atomic uint64_t synced; /* all bytes below are on the device */
    uint64_t header_synced;  /* the value of synced in the file's header */
    int64_t header_synced_ms;
    _Atomic int state;
    _Atomic uint32_t pins;    /* references that keep the segment mapped */
    _Atomic uint32_t syncing; /* running syncs */
    /* Of values only, because a tombstone need not outlive older tombstones. */
    _Atomic uint64_t min_stamp;
    _Atomic int64_t min_expiry_ms; /* the earliest expiry in the segment, INT64_MAX: none */
    _Atomic uint64_t tombstone_bytes;
    _Atomic uint64_t min_tombstone_stamp;
    _Atomic uint64_t max_stamp;
    int64_t swept_until_ms;    /* sealed: all values that expire up to then have been swept */
    bool toc_verified;         /* by the sweep */
    int64_t swept_ms;          /* when the last sweep for expired keys ended */
    _Atomic bool quarantined;  /* holds damage, so it is never compacted */
    _Atomic uint32_t *extents; /* by extent: the residency clock when it was last seen in memory */
    /* By extent, for the large record (longer than an extent) that begins in it: an enum
     * segment_verdict. */
    _Atomic uint8_t *verdicts;
    uint32_t extent_count;
    struct segment *next_released;
};

static inline uint64_t segment_location(uint32_t number, uint64_t offset)
{
    return (uint64_t)number << SEGMENT_OFFSET_BITS | offset / RECORD_ALIGN;
}
static inline uint32_t location_number(uint64_t location)
{
    return (uint32_t)(location >> SEGMENT_OFFSET_BITS);
}
static inline uint64_t location_offset(uint64_t location)
{
    return (location & ((UINT64_C(1) << SEGMENT_OFFSET_BITS) - 1)) * RECORD_ALIGN;
}
static inline const record_header *segment_record(const struct segment *segment, uint64_t offset)
{
    return (const record_header *)(const void *)(segment->map + offset);
}

/* A pinned segment stays mapped. */
static inline void segment_pin(struct segment *segment)
{
    (void)atomic_fetch_add(&segment->pins, 1);
}
static inline void segment_unpin(struct segment *segment)
{
    uint32_t before = atomic_fetch_sub(&segment->pins, 1);
    OORT_ASSERT(before != 0, "a segment is unpinned as often as it was pinned");
}

/* Makes a new segment file and preallocates it.  zeroed: also writes zeros, so that later syncs
 * need not convert extents. */
struct segment *segment_create(int directory_fd, uint64_t sequence, uint32_t number,
                               uint64_t capacity, const uint8_t store_id[16], bool zeroed,
                               oort_error *error);
/* Maps an existing file.  The state becomes SEGMENT_SEALED if a table of contents matches the
 * segment, else SEGMENT_SEALING with the tail still unknown (0).  any_store: accepts any
 * store_id. */
struct segment *segment_load(int directory_fd, uint64_t sequence, const uint8_t store_id[16],
                             bool any_store, oort_error *error);
void segment_free(struct segment *segment);
/* Opens the file of a loaded segment again, so that it can be sealed again. */
int32_t segment_reopen(int directory_fd, struct segment *segment, oort_error *error);
int32_t segment_unlink(int directory_fd, uint64_t sequence);

/* A record with this expiry has been appended, so the sweep must come by then.  0: never
 * expires. */
static inline void segment_note_expiry(struct segment *segment, int64_t expiry_ms)
{
    int64_t seen = atomic_load_explicit(&segment->min_expiry_ms, memory_order_relaxed);
    while (expiry_ms != 0 && expiry_ms < seen &&
           !atomic_compare_exchange_weak(&segment->min_expiry_ms, &seen, expiry_ms))
        ;
}

/* Runs fdatasync and moves `synced` to the tail as it was at the start.  Writes `synced` to the
 * file's header at most once a second. */
int32_t segment_sync(struct segment *segment, oort_error *error);

/* Called for each record of a scan.  The records of a batch are given only if the batch has its end
 * record.  0 continues the scan; any other value ends the scan and is its result. */
typedef int32_t (*segment_visitor)(void *context, struct segment *segment, uint64_t offset,
                                   const record_header *record, uint64_t size);
typedef struct segment_damage {
    uint64_t damaged_bytes; /* stepped over, or missing below `synced` */
    uint64_t damaged_runs;
    uint64_t first_damage; /* its offset */
    uint64_t cut_bytes;    /* of an unsynced tail without a valid record */
    uint64_t records;      /* given to the visitor */
    uint64_t dropped;      /* records of batches without an end record */
    uint64_t tail;         /* end of the valid records */
} segment_damage;
/* Scans the records from offset `from` up to `limit` (the capacity, or a known tail).  After an
 * invalid record the scan searches for the next valid record in 8-byte steps.  trusted: the kernel
 * has lived on since the last write, so zeros end the records and the scan does not search beyond
 * them. */
int32_t segment_scan(struct segment *segment, uint64_t from, uint64_t limit, bool trusted,
                     segment_visitor visitor, void *context, segment_damage *damage);

/* Cuts the file to its tail and makes all of it durable.  No segment_sync of this segment may
 * run. */
int32_t segment_cut(struct segment *segment, oort_error *error);
/* Call after segment_cut.  Writes the table of contents and makes the segment read-only.  The
 * descriptor stays open; the caller closes it when no sync can use it any more. */
int32_t segment_seal(int directory_fd, struct segment *segment, oort_error *error);
/* True if these bytes can be read without waiting for the disk.  tick: the residency clock, 0:
 * always true. */
bool segment_resident(struct segment *segment, uint64_t offset, uint64_t size, uint32_t tick);
/* Reads these bytes into memory and may block.  OORT_OK or OORT_ERR_IO. */
int32_t segment_fetch(struct segment *segment, uint64_t offset, uint64_t size);
/* These bytes have just been written, so they are in memory. */
static inline void segment_touch(struct segment *segment, uint64_t offset, uint32_t tick)
{
    atomic_store_explicit(&segment->extents[offset / SEGMENT_EXTENT_BYTES], tick,
                          memory_order_relaxed);
}

#endif
