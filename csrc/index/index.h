/*
 * index.h: the mmap index, from a key's ring hash to where its record lies.
 *
 * It knows neither keys nor records: an entry is a location, 24 tag bits, a
 * database and a stamp, 16 bytes.  Two keys can share hash bits; the caller
 * compares the keys of the candidates it is given.
 *
 * Order: the top 14 hash bits choose one of 16384 slots (the Redis Cluster
 * slot), the next 24 bits are the entry's tag.  Within a slot a trie over the
 * tag's bits leads to a bucket; a bucket is a list of 512-byte chunks used as one
 * open-addressed table of 64-byte lines.
 *
 * Threads: the caller serialises everything that touches one slot (a stripe lock
 * covers whole slots); different slots may be used at the same time.
 *
 * Crash safety: the mapping is recoverable after a kill at any instruction while the kernel
 * lives.  An entry is stored word 1 first, then word 0; structure changes
 * (bucket growth, split) are written to unused blocks and published by
 * one 8-byte store; blocks that were being built are simply unused again at the next open,
 * where the allocator's state is found by walking what is reachable.
 * After power loss the file must not be trusted: the owner makes a new one.
 */
#ifndef OORT_INDEX_H
#define OORT_INDEX_H

#include "oort.h"

#define INDEX_SLOTS 16384u
#define INDEX_SLOT_BITS 14
#define INDEX_TAG_BITS 24
#define INDEX_POSITION_BITS 38 /* slot and tag: what a SCAN cursor counts in */
/* Bytes in the file that belong to the owner (page aligned, zero at first). */
#define INDEX_OWNER_BYTES (1024u * 1024u)

/* word 0: location in the upper 40 bits (8-byte units), tag in the lower 24; 0: free.
 * word 1: database in the upper 4 bits, stamp in the lower 60. */
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

/* Where a lookup stands.  Opaque, on the stack; invalid after an insert or unlock of the slot. */
typedef struct index_cursor {
    uint64_t state[8];
} index_cursor;

/* Make a new, empty index file (replacing what is there), or open an existing one and
 * check its structure while finding the free blocks.  OORT_ERR_DAMAGED / OORT_ERR_FORMAT: make a
 * new one.  reserve_bytes: address space to reserve, 0 for the default. */
oort_index *index_create(const char *path, uint64_t reserve_bytes, oort_error *error);
oort_index *index_open(const char *path, uint64_t reserve_bytes, oort_error *error);
/* sync: msync + fsync first (a clean stop). */
int32_t index_close(oort_index *index, bool sync, oort_error *error);

/* The owner's bytes in the file's mapping (INDEX_OWNER_BYTES). */
void *index_owner_area(oort_index *index);
uint64_t index_file_bytes(oort_index *index);
int index_fd(oort_index *index);

/* Two-step prefetch: 1 fetches the path to the bucket, 2 the line; both cheap and never fault. */
void index_prefetch(oort_index *index, uint64_t hash, int step);

/* After both: where the hash's first candidate lies, or 0.  A guess, made without the slot's lock. */
uint64_t index_peek(oort_index *index, uint64_t hash, uint8_t database);

/* Start at the entries that may be this hash's in this database, then step through them:
 * true fills *entry.  A typical miss or hit touches one line. */
void index_seek(oort_index *index, uint64_t hash, uint8_t database, index_cursor *cursor);
bool index_next(oort_index *index, index_cursor *cursor, index_entry *entry);
/* Change or clear the entry index_next has just given.  The same location may appear with a new
 * stamp.  After an erase that made the bucket shrink, index_next starts over: it may give
 * entries again. */
void index_replace(oort_index *index, index_cursor *cursor, uint64_t location, uint64_t stamp);
void index_erase(oort_index *index, index_cursor *cursor);
/* Add an entry (the caller has made sure that the key has none).
 * location: 1 to 2^40 - 1.  OORT_OK, or with the index unchanged OORT_ERR_FULL (the disk),
 * OORT_ERR_IO, OORT_ERR_ARGUMENT. */
int32_t index_insert(oort_index *index, uint64_t hash, uint8_t database, uint64_t location,
                     uint64_t stamp);

/* Visit every entry of one slot (caller holds its stripe), in no particular order.
 * The visitor may return INDEX_KEEP, INDEX_ERASE or INDEX_STOP. */
enum { INDEX_KEEP = 0, INDEX_ERASE = 1, INDEX_STOP = 2 };
typedef int (*index_visitor)(void *context, uint32_t slot, index_entry entry);
void index_visit_slot(oort_index *index, uint32_t slot, index_visitor visitor, void *context);

/* Entries of one slot with tag >= tag, in ascending tag order, up to capacity, never splitting a
 * run of equal tags: fills entries, *count; *next_tag is the tag to continue with, or
 * INDEX_SLOT_END.  OORT_ERR_TOO_BIG when the first tag alone has more than capacity; *count is
 * then what it has. */
#define INDEX_SLOT_END UINT32_MAX
int32_t index_scan_slot(oort_index *index, uint32_t slot, uint32_t tag, index_entry *entries,
                        uint32_t capacity, uint32_t *count, uint32_t *next_tag);

/* Drop every entry and give the file's space back (as a hole up to the next open, as others may be
 * prefetching).  The caller holds every stripe. */
int32_t index_clear(oort_index *index, oort_error *error);

#endif
