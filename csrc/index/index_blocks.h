/*
 * index_blocks.h: the index file: its header, its mapping, its growth, and which of
 * its blocks are free.
 *
 * Layout: header page, the owner's bytes, the directory, then space in 512-byte
 * units.  A unit is a chunk of entries, or is cut into four 128-byte small blocks.
 * A block id is its file offset / 128, so a unit's id is a multiple of four.
 *
 * What is free is known in memory only, as two bitmaps; at open everything is free
 * until the structure that reaches it claims it.
 *
 * Threads: the block calls lock for themselves; open, close and claim are for one thread.
 */
#ifndef OORT_INDEX_BLOCKS_H
#define OORT_INDEX_BLOCKS_H

#include "index/index.h"

#include <pthread.h>

#define INDEX_SMALL_BYTES 128u
#define INDEX_UNIT_BYTES 512u
#define INDEX_UNIT_BLOCKS (INDEX_UNIT_BYTES / INDEX_SMALL_BYTES)

/* A set of numbers below a fixed bound; a summary bit stands for a word that is not 0. */
typedef struct index_bitmap {
    uint64_t *words;
    uint64_t *summary;
    uint64_t word_count;
    uint64_t summary_count;
    uint64_t count;  /* members */
    uint64_t lowest; /* no summary word before it has a bit */
} index_bitmap;

typedef struct index_blocks {
    uint8_t *base;       /* the mapping */
    uint64_t *directory; /* INDEX_SLOTS words in it */
    int fd;
    uint64_t reserved; /* address space, bytes */
    uint64_t backed;   /* bytes from 0 on that have disk behind them; read without the lock */
    pthread_mutex_t lock;
    index_bitmap free_units; /* by unit number */
    index_bitmap free_small; /* by block id */
} index_blocks;

int32_t index_blocks_create(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                            oort_error *error);
int32_t index_blocks_open(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                          oort_error *error);
int32_t index_blocks_close(index_blocks *blocks, bool sync, oort_error *error);
void *index_blocks_owner(index_blocks *blocks);

static inline void *index_block_at(const index_blocks *blocks, uint32_t id)
{
    return blocks->base + (uint64_t)id * INDEX_SMALL_BYTES;
}

/* During open: take a block that is reachable.  False: out of range, misaligned, or taken twice. */
bool index_blocks_claim_unit(index_blocks *blocks, uint32_t id);
bool index_blocks_claim_small(index_blocks *blocks, uint32_t id);

/* All or nothing, content undefined.  OORT_OK, OORT_ERR_FULL or OORT_ERR_IO. */
int32_t index_blocks_take(index_blocks *blocks, uint32_t *units, uint32_t unit_count,
                          uint32_t *small, uint32_t small_count);
void index_blocks_give(index_blocks *blocks, const uint32_t *units, uint32_t unit_count,
                       const uint32_t *small, uint32_t small_count);

/* Nothing is reachable any more: empty the directory, give the disk its space back. */
int32_t index_blocks_clear(index_blocks *blocks, oort_error *error);

#endif
