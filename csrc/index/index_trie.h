/*
 * index_trie.h: the structures in the index file, shared by index.c (entries and growth) and
 * index_slot.c (whole slots, and the check at open).
 *
 * A word of the directory leads to nothing (0), to a bucket, or to a trie node.  The children of a
 * node do the same for the next four tag bits.  As in extendible hashing, a bucket may have a
 * smaller depth than its node allows; a whole aligned range of children then leads to it.
 *
 * The chunks of a bucket form one table of 64-byte lines.  The home line of an entry is the rest of
 * its tag, scaled to the number of lines, so lines stand in the order of tags.  If the home line is
 * full, the entry goes to the next line (after the last line to the first).  Every full line that
 * was passed has its overflow bit set, so a search ends at the first line without the bit.  Only a
 * rebuild of the table clears overflow bits.
 */
#ifndef OORT_INDEX_TRIE_H
#define OORT_INDEX_TRIE_H

#include "index/index_blocks.h"

#define LINE_ENTRIES 4u
#define LINE_BYTES 64u
#define CHUNK_LINES (INDEX_UNIT_BYTES / LINE_BYTES)
#define CHUNK_ENTRIES (CHUNK_LINES * LINE_ENTRIES)
#define CHUNKS_MAX 24u
#define LINES_MAX (CHUNKS_MAX * CHUNK_LINES)
#define BUCKET_ENTRIES_MAX (CHUNKS_MAX * CHUNK_ENTRIES)

#define NODE_BITS 4u
#define NODE_CHILDREN 16u
#define LEVELS_MAX (INDEX_TAG_BITS / NODE_BITS)

#define WORD_KIND 3u
#define WORD_BUCKET 1u
#define WORD_NODE 2u

typedef struct node {
    uint64_t child[NODE_CHILDREN];
} node;

typedef struct bucket {
    uint32_t next; /* the next older bucket of the chain, or 0 */
    uint16_t count;
    uint8_t chunks;
    uint8_t depth; /* number of tag bits used on the way to the bucket */
    uint64_t overflow[LINES_MAX / 64];
    uint32_t chunk[CHUNKS_MAX];
} bucket;

_Static_assert(sizeof(node) == INDEX_SMALL_BYTES, "a node is a small block");
_Static_assert(sizeof(bucket) == INDEX_SMALL_BYTES, "a bucket is a small block");
_Static_assert(sizeof(index_entry) * LINE_ENTRIES == LINE_BYTES, "entries fill a line");

struct oort_index {
    index_blocks blocks;
};

/* The way from the directory to a bucket. */
typedef struct path {
    uint64_t *where[LEVELS_MAX + 1]; /* where[levels] holds the word of the bucket, or 0 */
    uint32_t node[LEVELS_MAX];
    uint32_t levels;
} path;

static inline uint32_t word_id(uint64_t word)
{
    return (uint32_t)(word >> 2);
}
static inline uint64_t bucket_word(uint32_t id)
{
    return (uint64_t)id << 2 | WORD_BUCKET;
}
static inline uint64_t node_word(uint32_t id)
{
    return (uint64_t)id << 2 | WORD_NODE;
}
static inline uint64_t load_word(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void store_word(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline uint32_t id_of(const oort_index *index, const bucket *b)
{
    return (uint32_t)((uint64_t)((const uint8_t *)b - index->blocks.base) / INDEX_SMALL_BYTES);
}

static inline uint32_t capacity_of(const bucket *b)
{
    return b->chunks * CHUNK_ENTRIES;
}

static inline uint32_t home_line(uint32_t tag, uint32_t depth, uint32_t lines)
{
    uint32_t rest = (uint32_t)((uint64_t)tag << (32 - INDEX_TAG_BITS + depth));
    return (uint32_t)((uint64_t)rest * lines >> 32);
}

static inline index_entry *line_at(const oort_index *index, const bucket *b, uint32_t line)
{
    uint8_t *chunk = index_block_at(&index->blocks, b->chunk[line / CHUNK_LINES]);
    return (index_entry *)(void *)(chunk + line % CHUNK_LINES * LINE_BYTES);
}

static inline bool overflows(const bucket *b, uint32_t line)
{
    return b->overflow[line / 64] >> line % 64 & 1;
}

static inline uint32_t child_of(uint32_t tag, uint32_t level)
{
    return tag >> (INDEX_TAG_BITS - NODE_BITS * (level + 1)) & (NODE_CHILDREN - 1);
}

/* Finds the bucket of a tag and the way to it.  Returns the word at the end of the way. */
static inline uint64_t find_path(const oort_index *index, uint32_t slot, uint32_t tag, path *way)
{
    uint64_t word;
    way->levels = 0;
    way->where[0] = &index->blocks.directory[slot];
    while (((word = load_word(way->where[way->levels])) & WORD_KIND) == WORD_NODE) {
        node *at = index_block_at(&index->blocks, word_id(word));
        way->node[way->levels] = word_id(word);
        way->where[way->levels + 1] = &at->child[child_of(tag, way->levels)];
        way->levels++;
    }
    return word;
}

/* Copies the entries of a bucket in table order and returns their number.  out has room for
 * BUCKET_ENTRIES_MAX + 1 entries. */
uint32_t index_gather(const oort_index *index, const bucket *b, index_entry *out);
void index_erase_at(bucket *b, index_entry *at);
/* After an erase: gives back the space of a nearly empty bucket.  True: the bucket is gone. */
bool index_settle(oort_index *index, uint32_t slot, uint32_t tag, bucket *b);
/* At open: claims every block that the directory leads to.  False: the structure is invalid. */
bool index_claim_structure(oort_index *index);

#endif
