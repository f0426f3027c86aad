/*
 * segment.h: one file of the value log, mapped.
 *
 * A segment is active (one writer appends), sealing (full, its table of contents not yet
 * written) or sealed (never changed again).  Appending is done by
 * vlog.c; here are the file's life, scanning, and
 * whether bytes can be touched without waiting for the disk.
 *
 * A mapped page that cannot be read raises SIGBUS: readers ask
 * segment_resident first and leave what is not in memory to segment_fetch,
 * which reports an I/O error as an error.
 */
#ifndef OORT_SEGMENT_H
#define OORT_SEGMENT_H

#include <stdatomic.h>

#include "base/assert.h"
#include "log/record.h"

#define SEGMENT_NUMBERS 65536u
#define SEGMENT_OFFSET_BITS 24 /* of a location: offset in 8-byte units */
#define SEGMENT_BYTES_MAX (UINT64_C(1) << (SEGMENT_OFFSET_BITS + 3))
#define SEGMENT_EXTENT_BYTES (256u * 1024u) /* granule of the residency clock */

enum segment_verdict { VERDICT_NONE = 0, VERDICT_WHOLE = 1, VERDICT_DAMAGED = 2 };

enum segment_state {
    SEGMENT_ACTIVE = 0,
    SEGMENT_SEALING = 1, /* waits for its table of contents */
    SEGMENT_CLOSING = 2, /* a thread is writing that table */
    SEGMENT_SEALED = 3
};

struct segment {
    uint64_t sequence;
    uint32_t number;
    uint32_t seed;
    int fd; /* -1 once sealed */
    uint8_t *map;
    uint64_t capacity;       /* mapped bytes */
    uint64_t lost_bytes;     /* found when it was loaded: the file is so much shorter than it was */
    _Atomic uint64_t tail;   /* records end here */
    _Atomic uint64_t synced; /* below, everything is on the device */
    uint64_t header_synced;  /* what the file's header says of it */
    int64_t header_synced_ms;
    _Atomic int state;
    _Atomic uint32_t pins;         /* values being sent */
    _Atomic uint32_t syncing;      /* syncs under way */
    _Atomic uint64_t min_stamp;    /* of its values: tombstones need not outlive each other */
    _Atomic int64_t min_expiry_ms; /* the next expiry in here, INT64_MAX: none */
    _Atomic uint64_t tombstone_bytes;
    _Atomic uint64_t min_tombstone_stamp;
    _Atomic uint64_t max_stamp;
    int64_t swept_until_ms;    /* what expired up to then has been swept from the sealed segment */
    bool toc_verified;         /* by the sweep */
    int64_t swept_ms;          /* expiry: when the last sweep ended */
    _Atomic bool quarantined;  /* holds damage: never compacted away */
    _Atomic uint32_t *extents; /* residency clock's tick when last seen in memory */
    /* Of the large record (over an extent) that begins in an extent: is its checksum right? */
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

/* Make a new segment file, preallocated; zeroed: write zeros as well, so that later syncs
 * need not convert extents. */
struct segment *segment_create(int directory_fd, uint64_t sequence, uint32_t number,
                               uint64_t capacity, const uint8_t store_id[16], bool zeroed,
                               oort_error *error);
/* Map an existing one.  Its state is sealed when a table of contents fits it, else sealing, with
 * the tail still unknown (0). */
struct segment *segment_load(int directory_fd, uint64_t sequence, const uint8_t store_id[16],
                             bool any_store, oort_error *error);
void segment_free(struct segment *segment);
/* Open the file of a loaded segment again, to seal it anew. */
int32_t segment_reopen(int directory_fd, struct segment *segment, oort_error *error);
int32_t segment_unlink(int directory_fd, uint64_t sequence);

/* A record that expires then is in there (appended already): when the sweep has to come. 0: never. */
static inline void segment_note_expiry(struct segment *segment, int64_t expiry_ms)
{
    int64_t seen = atomic_load_explicit(&segment->min_expiry_ms, memory_order_relaxed);
    while (expiry_ms != 0 && expiry_ms < seen &&
           !atomic_compare_exchange_weak(&segment->min_expiry_ms, &seen, expiry_ms))
        ;
}

/* fdatasync up to the tail as it is now; persists how far, at most once a second. */
int32_t segment_sync(struct segment *segment, oort_error *error);

/* Walk the records from an offset on, up to limit (capacity, or a known tail).  Records of a batch are given only when its end is there.
 * visitor: 0 to go on, anything else stops the walk and is returned. */
typedef int32_t (*segment_visitor)(void *context, struct segment *segment, uint64_t offset,
                                   const record_header *record, uint64_t size);
typedef struct segment_damage {
    uint64_t damaged_bytes; /* stepped over, or missing below the synced position */
    uint64_t damaged_runs;
    uint64_t first_damage; /* offset */
    uint64_t cut_bytes;    /* of an unsynced tail that held no whole record */
    uint64_t records;      /* given to the visitor */
    uint64_t dropped;      /* records of batches without an end */
    uint64_t tail;         /* where the valid records end */
} segment_damage;
/* Beyond an invalid record the rest is searched in 8-byte steps; trusted: not where zeros follow
 * (the kernel lived, so nothing can lie behind them). */
int32_t segment_scan(struct segment *segment, uint64_t from, uint64_t limit, bool trusted,
                     segment_visitor visitor, void *context, segment_damage *damage);

/* Cut the file to its tail and make all of it durable.  No segment_sync of it may be under way. */
int32_t segment_cut(struct segment *segment, oort_error *error);
/* After segment_cut: write the table of contents, make the segment read-only.  The descriptor stays
 * open: the caller closes it once no sync can be using it. */
int32_t segment_seal(int directory_fd, struct segment *segment, oort_error *error);
/* May these bytes be touched without waiting?  tick: the residency clock, 0: always. */
bool segment_resident(struct segment *segment, uint64_t offset, uint64_t size, uint32_t tick);
/* Bring them in; may block.  OORT_OK or OORT_ERR_IO. */
int32_t segment_fetch(struct segment *segment, uint64_t offset, uint64_t size);
/* Tell the residency clock that these bytes have just been written. */
static inline void segment_touch(struct segment *segment, uint64_t offset, uint32_t tick)
{
    atomic_store_explicit(&segment->extents[offset / SEGMENT_EXTENT_BYTES], tick,
                          memory_order_relaxed);
}

#endif
