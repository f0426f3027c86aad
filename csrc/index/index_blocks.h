/*
 * index_blocks.h: the index file: its header, its mapping, its growth, and its free blocks.
 *
 * Layout: the header page, the owner's bytes, the directory, then space in units of 512 bytes.  A
 * unit is a chunk of entries, or is cut into four small blocks of 128 bytes.  The id of a block is
 * its offset in the file / 128, so the id of a unit is a multiple of four.
 *
 * The free blocks are known only in memory, as two bitmaps.  At open all blocks are free until the
 * structure that reaches them claims them.
 *
 * Threads: take, give and clear lock by themselves.  Open, close and claim are for one thread.
 */
#ifndef OORT_INDEX_BLOCKS_H
#define OORT_INDEX_BLOCKS_H

#include "index/index.h"

#include <pthread.h>

#define INDEX_SMALL_BYTES 128u
#define INDEX_UNIT_BYTES 512u
#define INDEX_UNIT_BLOCKS (INDEX_UNIT_BYTES / INDEX_SMALL_BYTES)

/* A set of numbers below a fixed bound.  A summary bit stands for a word that is not 0. */
typedef struct index_bitmap {
    uint64_t *words;
    uint64_t *summary;
    uint64_t word_count;
    uint64_t summary_count;
    uint64_t count;  /* members */
    uint64_t lowest; /* summary words before it are 0 */
} index_bitmap;

typedef struct index_blocks {
    uint8_t *base;       /* the mapping */
    uint64_t *directory; /* INDEX_SLOTS words in the mapping */
    int fd;
    uint64_t reserved; /* address space, bytes */
    uint64_t backed;   /* bytes from 0 on with allocated disk space; read without the lock */
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

/* During open: claims a reachable block.  False: out of range, misaligned, or claimed before. */
bool index_blocks_claim_unit(index_blocks *blocks, uint32_t id);
bool index_blocks_claim_small(index_blocks *blocks, uint32_t id);

/* Takes all blocks or none.  Their content is undefined.  OORT_OK, OORT_ERR_FULL or OORT_ERR_IO. */
int32_t index_blocks_take(index_blocks *blocks, uint32_t *units, uint32_t unit_count,
                          uint32_t *small, uint32_t small_count);
void index_blocks_give(index_blocks *blocks, const uint32_t *units, uint32_t unit_count,
                       const uint32_t *small, uint32_t small_count);

/* Empties the directory and gives the disk space back. */
int32_t index_blocks_clear(index_blocks *blocks, oort_error *error);

#endif
