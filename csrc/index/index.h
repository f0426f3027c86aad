/*
 * index.h: the mapped index, from the ring hash of a key to the location of its record.
 *
 * The index knows neither keys nor records.  An entry has 16 bytes: a location, 24 tag bits, a
 * database and a stamp.  Two keys can share hash bits, so the caller compares the keys of the
 * candidates.
 *
 * Order: the top 14 hash bits choose one of 16384 slots (the Redis Cluster slot).  The next 24 bits
 * are the entry's tag.  Within a slot a trie over the tag's bits leads to a bucket.  A bucket is a
 * list of 512-byte chunks that are used as one open-addressed table of 64-byte lines.
 *
 * Threads: the caller serialises all calls for one slot; a stripe lock covers whole slots.
 * Different slots may be used at the same time.
 *
 * Crash safety: while the kernel lives, the mapping is recoverable after a kill at any instruction.
 * Word 1 of an entry is stored before word 0.  Structure changes (growth and split of a bucket) are
 * written to unused blocks and published by one 8-byte store.  The next open finds the free blocks
 * by walking all reachable ones, so unfinished blocks are simply free again.  After a power loss
 * the file must not be trusted; the owner makes a new one.
 */
#ifndef OORT_INDEX_H
#define OORT_INDEX_H

#include "oort.h"

#define INDEX_SLOTS 16384u
#define INDEX_SLOT_BITS 14
#define INDEX_TAG_BITS 24
#define INDEX_POSITION_BITS 38 /* slot and tag: the positions of a SCAN cursor */
/* Bytes of the file that belong to the owner: page aligned, zero at first. */
#define INDEX_OWNER_BYTES (1024u * 1024u)

/* word 0: the location in the upper 40 bits (8-byte units), the tag in the lower 24.  0: free.
 * word 1: the database in the upper 4 bits, the stamp in the lower 60. */
typedef struct index_entry {
    uint64_t word[2];
} index_entry;

static inline uint64_t index_location(index_entry e)
{
    return e.word[0] >> INDEX_TAG_BITS;
}
static inline uint32_t index_tag(index_entry e)
{
    return (uint32_t)e.word[0] & 0xffffffu;
}
static inline uint64_t index_stamp(index_entry e)
{
    return e.word[1] & ((UINT64_C(1) << 60) - 1);
}
static inline uint8_t index_database(index_entry e)
{
    return (uint8_t)(e.word[1] >> 60);
}
static inline uint32_t index_hash_slot(uint64_t hash)
{
    return (uint32_t)(hash >> 50);
}
static inline uint32_t index_hash_tag(uint64_t hash)
{
    return (uint32_t)(hash >> 26) & 0xffffffu;
}

typedef struct oort_index oort_index;

/* The state of a lookup.  Opaque, on the caller's stack.  Invalid after an insert into the slot and
 * after the slot was unlocked. */
typedef struct index_cursor {
    uint64_t state[8];
} index_cursor;

/* index_create makes a new, empty index file and replaces an existing one.  index_open opens an
 * existing file, checks its structure and finds the free blocks.  After OORT_ERR_DAMAGED or
 * OORT_ERR_FORMAT make a new one.  reserve_bytes: address space to reserve, 0 for the default. */
oort_index *index_create(const char *path, uint64_t reserve_bytes, oort_error *error);
oort_index *index_open(const char *path, uint64_t reserve_bytes, oort_error *error);
/* sync: runs msync and fsync first (a clean stop). */
int32_t index_close(oort_index *index, bool sync, oort_error *error);

/* The owner's INDEX_OWNER_BYTES in the mapping. */
void *index_owner_area(oort_index *index);
uint64_t index_file_bytes(oort_index *index);
int index_fd(oort_index *index);

/* Prefetches in two steps: 1 fetches the path to the bucket, 2 the line.  Both are cheap and never
 * fault. */
void index_prefetch(oort_index *index, uint64_t hash, int step);

/* After both steps: the location of the hash's first candidate, or 0.  The result is a guess,
 * because it is made without the slot's lock. */
uint64_t index_peek(oort_index *index, uint64_t hash, uint8_t database);

/* index_seek starts at the entries that may belong to this hash and database.  index_next steps
 * through them: true fills *entry.  A typical hit or miss touches one line. */
void index_seek(oort_index *index, uint64_t hash, uint8_t database, index_cursor *cursor);
bool index_next(oort_index *index, index_cursor *cursor, index_entry *entry);
/* Changes or clears the entry that index_next has just returned.  The same location may get a new
 * stamp. If an erase makes the bucket shrink, index_next starts over and may return entries
 * again. */
void index_replace(oort_index *index, index_cursor *cursor, uint64_t location, uint64_t stamp);
void index_erase(oort_index *index, index_cursor *cursor);
/* Adds an entry.  The caller has checked that the key has none.  location: 1 to 2^40 - 1.  On an
 * error the index is unchanged: OORT_ERR_FULL (the disk), OORT_ERR_IO or OORT_ERR_ARGUMENT. */
int32_t index_insert(oort_index *index, uint64_t hash, uint8_t database, uint64_t location,
                     uint64_t stamp);

/* Visits every entry of one slot, in no particular order.  The caller holds the slot's stripe.  The
 * visitor returns INDEX_KEEP, INDEX_ERASE or INDEX_STOP. */
enum { INDEX_KEEP = 0, INDEX_ERASE = 1, INDEX_STOP = 2 };
typedef int (*index_visitor)(void *context, uint32_t slot, index_entry entry);
void index_visit_slot(oort_index *index, uint32_t slot, index_visitor visitor, void *context);

/* Copies entries of one slot whose tags are at least `tag`, in ascending order of tags, up to
 * capacity. Entries with equal tags are never split.  *count: number of entries.  *next_tag: the
 * tag at which to continue, or INDEX_SLOT_END.  OORT_ERR_TOO_BIG: the first tag alone has more
 * entries than capacity; *count is their number. */
#define INDEX_SLOT_END UINT32_MAX
int32_t index_scan_slot(oort_index *index, uint32_t slot, uint32_t tag, index_entry *entries,
                        uint32_t capacity, uint32_t *count, uint32_t *next_tag);

/* Drops every entry and gives the space of the file back.  The space becomes a hole until the next
 * open, because other threads may be prefetching.  The caller holds every stripe. */
int32_t index_clear(oort_index *index, oort_error *error);

#endif
