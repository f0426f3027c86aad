/*
 * index.c: entries, and how their buckets grow, split and shrink.  The contract is in index.h, the
 * layout in index_trie.h.
 *
 * A bucket's table is rebuilt into new blocks, and one 8-byte store publishes the result: a larger
 * table, a smaller table, or two halves of a table that has all its chunks.  When all tag bits are
 * used and the bucket cannot be halved, a new bucket is put before it in a chain.
 *
 * A bucket's count only steers growth.  A kill may leave the count off by one; a rebuild corrects
 * it.
 */
#include "index/index_trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

/* Percent of a table's entries.  A table is rebuilt to GROWN_LOAD when it reaches GROW_LOAD.  It is
 * also rebuilt when an entry would lie DISPLACEMENT_MAX lines from home, unless the table is
 * emptier than SPARSE_LOAD: equal tags are then the cause, and growth does not help.  With these
 * loads the file takes 20.8 to 21.4 bytes a key from five million random keys on. */
#define GROW_LOAD 90u
#define GROWN_LOAD 74u
#define SPARSE_LOAD 60u
#define SHRINK_LOAD 25u
#define SHRUNK_LOAD 60u
#define DISPLACEMENT_MAX 16u

typedef struct cursor {
    bucket *at; /* NULL: at the end */
    index_entry *line;
    index_entry *current;
    uint64_t hash;
    uint32_t pending; /* bit i: entry i of the line matches and was not returned yet */
    uint32_t line_number;
    uint32_t lines_left;
    uint32_t database;
} cursor;

_Static_assert(sizeof(cursor) <= sizeof(index_cursor), "a cursor fits in its opaque form");

/* ---- finding ------------------------------------------------------------ */

static bucket *find_bucket(const oort_index *index, uint32_t slot, uint32_t tag)
{
    uint64_t word = load_word(&index->blocks.directory[slot]);
    for (uint32_t level = 0; (word & WORD_KIND) == WORD_NODE; level++) {
        node *at = index_block_at(&index->blocks, word_id(word));
        word = load_word(&at->child[child_of(tag, level)]);
    }
    return word == 0 ? NULL : index_block_at(&index->blocks, word_id(word));
}

/* Has no branches, because the matching entry of the four cannot be predicted. */
static inline uint32_t match(index_entry entry, uint32_t tag, uint32_t database)
{
    return (uint32_t)(index_tag(entry) == tag) & (uint32_t)(index_location(entry) != 0) &
           (uint32_t)(index_database(entry) == database);
}

/* One bit for each entry of the line that may be the wanted one. */
static inline uint32_t matches(const index_entry *line, uint32_t tag, uint32_t database)
{
    return match(line[0], tag, database) | match(line[1], tag, database) << 1 |
           match(line[2], tag, database) << 2 | match(line[3], tag, database) << 3;
}

static void enter_bucket(const oort_index *index, cursor *c, bucket *b)
{
    uint32_t tag = index_hash_tag(c->hash);
    uint32_t lines = b->chunks * CHUNK_LINES;
    c->at = b;
    c->line_number = home_line(tag, b->depth, lines);
    c->lines_left = lines - 1;
    c->line = line_at(index, b, c->line_number);
    c->pending = matches(c->line, tag, c->database);
}

void index_seek(oort_index *index, uint64_t hash, uint8_t database, index_cursor *opaque)
{
    cursor *c = (cursor *)(void *)opaque;
    bucket *b = find_bucket(index, index_hash_slot(hash), index_hash_tag(hash));
    c->hash = hash;
    c->database = database;
    c->current = NULL;
    c->pending = 0;
    c->at = NULL;
    if (b != NULL)
        enter_bucket(index, c, b);
}

bool index_next(oort_index *index, index_cursor *opaque, index_entry *entry)
{
    cursor *c = (cursor *)(void *)opaque;
    while (c->pending == 0) {
        if (c->at == NULL)
            return false;
        if (c->lines_left > 0 && overflows(c->at, c->line_number)) {
            c->lines_left--;
            if (++c->line_number == c->at->chunks * CHUNK_LINES)
                c->line_number = 0;
            c->line = line_at(index, c->at, c->line_number);
            c->pending = matches(c->line, index_hash_tag(c->hash), c->database);
        } else if (c->at->next != 0) {
            enter_bucket(index, c, index_block_at(&index->blocks, c->at->next));
        } else {
            c->at = NULL;
            return false;
        }
    }
    c->current = c->line + __builtin_ctz(c->pending);
    c->pending &= c->pending - 1;
    *entry = *c->current;
    return true;
}

/* The bucket of a hash (guess_bucket) and the home line of its entries (guess_line), read without
 * the slot's lock.  Blocks may change at any time, so every id is checked before it is followed.
 * ThreadSanitizer is told that these races are intended.  guess_bucket returns NULL if there is no
 * bucket or, in step 1, if a node must be brought into the cache first. */
__attribute__((no_sanitize("thread"))) static const bucket *guess_bucket(const index_blocks *blocks,
                                                                         uint64_t hash, int step)
{
    uint64_t end = __atomic_load_n(&blocks->backed, __ATOMIC_ACQUIRE) / INDEX_SMALL_BYTES;
    uint32_t tag = index_hash_tag(hash);
    uint64_t word = __atomic_load_n(&blocks->directory[index_hash_slot(hash)], __ATOMIC_RELAXED);
    for (uint32_t level = 0; (word & WORD_KIND) == WORD_NODE && level < LEVELS_MAX; level++) {
        const node *at =
            (const node *)(const void *)(blocks->base + (word >> 2) * INDEX_SMALL_BYTES);
        if (word >> 2 >= end)
            return NULL;
        if (step == 1 && level > 0) {
            __builtin_prefetch(&at->child[child_of(tag, level)]);
            return NULL;
        }
        word = __atomic_load_n(&at->child[child_of(tag, level)], __ATOMIC_RELAXED);
    }
    if ((word & WORD_KIND) != WORD_BUCKET || word >> 2 >= end)
        return NULL;
    return index_block_at(blocks, word_id(word));
}

__attribute__((no_sanitize("thread"))) static const index_entry *
guess_line(const index_blocks *blocks, const bucket *b, uint32_t tag, bool *overflow)
{
    uint64_t end = __atomic_load_n(&blocks->backed, __ATOMIC_ACQUIRE) / INDEX_SMALL_BYTES;
    uint32_t chunks = __atomic_load_n(&b->chunks, __ATOMIC_RELAXED);
    if (chunks == 0 || chunks > CHUNKS_MAX)
        return NULL;
    uint32_t depth = __atomic_load_n(&b->depth, __ATOMIC_RELAXED) & 31;
    uint32_t line = home_line(tag, depth, chunks * CHUNK_LINES);
    uint32_t chunk = __atomic_load_n(&b->chunk[line / CHUNK_LINES], __ATOMIC_RELAXED);
    if (chunk >= end)
        return NULL;
    *overflow = line % CHUNK_LINES != CHUNK_LINES - 1 &&
                (__atomic_load_n(&b->overflow[line / 64], __ATOMIC_RELAXED) >> line % 64 & 1) != 0;
    return (const index_entry *)(const void *)((const uint8_t *)index_block_at(blocks, chunk) +
                                               line % CHUNK_LINES * LINE_BYTES);
}

void index_prefetch(oort_index *index, uint64_t hash, int step)
{
    const bucket *b = guess_bucket(&index->blocks, hash, step);
    bool overflow = false;
    if (b == NULL)
        return;
    if (step == 1) {
        __builtin_prefetch(b);
        __builtin_prefetch((const uint8_t *)b + LINE_BYTES);
        return;
    }
    const index_entry *line = guess_line(&index->blocks, b, index_hash_tag(hash), &overflow);
    if (line == NULL)
        return;
    __builtin_prefetch(line);
    if (overflow)
        __builtin_prefetch(line + LINE_ENTRIES);
}

__attribute__((no_sanitize("thread"))) uint64_t index_peek(oort_index *index, uint64_t hash,
                                                           uint8_t database)
{
    const bucket *b = guess_bucket(&index->blocks, hash, 2);
    bool overflow = false;
    const index_entry *line = b == NULL
                                  ? NULL
                                  : guess_line(&index->blocks, b, index_hash_tag(hash), &overflow);
    if (line == NULL)
        return 0;
    for (uint32_t i = 0; i < (overflow ? 2 * LINE_ENTRIES : LINE_ENTRIES); i++) {
        index_entry entry = {{__atomic_load_n(&line[i].word[0], __ATOMIC_RELAXED),
                              __atomic_load_n(&line[i].word[1], __ATOMIC_RELAXED)}};
        if (index_tag(entry) == index_hash_tag(hash) && index_database(entry) == database)
            return index_location(entry);
    }
    return 0;
}

/* ---- changing the structure --------------------------------------------- */

/* The children of the last node of the path that lead to a bucket of this depth (way->levels >
 * 0). */
static void child_range(const path *way, uint32_t tag, uint32_t depth, uint32_t *first,
                        uint32_t *width)
{
    *width = 1u << (NODE_BITS * way->levels - depth);
    *first = child_of(tag, way->levels - 1) & ~(*width - 1);
}

/* Makes one half of a bucket's range lead to `low` and the other half to `high`, in one store.
 * Uses the spare node if several children change.  *spare is then the small block that became
 * unused. */
static void publish(oort_index *index, const path *way, uint32_t tag, uint32_t depth, uint64_t low,
                    uint64_t high, uint32_t *spare)
{
    uint32_t first, width, old;
    node *copy;
    if (way->levels == 0) {
        store_word(way->where[0], low);
        return;
    }
    child_range(way, tag, depth, &first, &width);
    if (width == 1) {
        store_word(way->where[way->levels], low);
        return;
    }
    old = way->node[way->levels - 1];
    copy = index_block_at(&index->blocks, *spare);
    memcpy(copy, index_block_at(&index->blocks, old), sizeof *copy);
    for (uint32_t i = 0; i < width; i++)
        copy->child[first + i] = i < width / 2 ? low : high;
    store_word(way->where[way->levels - 1], node_word(*spare));
    *spare = old;
}

uint32_t index_gather(const oort_index *index, const bucket *b, index_entry *out)
{
    uint32_t count = 0;
    for (uint32_t line = 0; line < b->chunks * CHUNK_LINES; line++) {
        const index_entry *at = line_at(index, b, line);
        /* Chunks lie far apart, so the processor does not prefetch the next one. */
        if (line + 2 * CHUNK_LINES < b->chunks * CHUNK_LINES)
            __builtin_prefetch(line_at(index, b, line + 2 * CHUNK_LINES));
        for (uint32_t i = 0; i < LINE_ENTRIES; i++) {
            out[count] = at[i];
            count += index_location(at[i]) != 0;
        }
    }
    return count;
}

/* Fills a bucket that is not reachable yet. */
static void build(const oort_index *index, uint32_t id, uint32_t depth, uint32_t next,
                  const uint32_t *chunk_ids, uint32_t chunks, const index_entry *entries,
                  uint32_t count)
{
    bucket *b = index_block_at(&index->blocks, id);
    uint8_t used[LINES_MAX] = {0};
    uint32_t lines = chunks * CHUNK_LINES;
    memset(b, 0, sizeof *b);
    b->next = next;
    b->count = (uint16_t)count;
    b->chunks = (uint8_t)chunks;
    b->depth = (uint8_t)depth;
    for (uint32_t i = 0; i < chunks; i++) {
        b->chunk[i] = chunk_ids[i];
        memset(index_block_at(&index->blocks, chunk_ids[i]), 0, INDEX_UNIT_BYTES);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t line = home_line(index_tag(entries[i]), depth, lines);
        while (used[line] == LINE_ENTRIES) {
            b->overflow[line / 64] |= UINT64_C(1) << line % 64;
            line = line + 1 == lines ? 0 : line + 1;
        }
        line_at(index, b, line)[used[line]++] = entries[i];
    }
}

static uint32_t chunks_for(uint32_t count, uint32_t load)
{
    uint32_t chunks = (count * 100 + CHUNK_ENTRIES * load - 1) / (CHUNK_ENTRIES * load);
    return chunks == 0 ? 1 : chunks > CHUNKS_MAX ? CHUNKS_MAX : chunks;
}

static int32_t create_bucket(oort_index *index, const path *way, uint32_t tag)
{
    uint32_t unit, small[2], depth = 0;
    int32_t status = index_blocks_take(&index->blocks, &unit, 1, small, 2);
    if (status != OORT_OK)
        return status;
    if (way->levels > 0) {
        const node *parent = index_block_at(&index->blocks, way->node[way->levels - 1]);
        uint32_t width = 1;
        while (width < NODE_CHILDREN / 2) {
            uint32_t first = child_of(tag, way->levels - 1) & ~(2 * width - 1);
            uint64_t any = 0;
            for (uint32_t i = first; i < first + 2 * width; i++)
                any |= parent->child[i];
            if (any != 0)
                break;
            width *= 2;
        }
        depth = NODE_BITS * way->levels - (uint32_t)__builtin_ctz(width);
    }
    build(index, small[0], depth, 0, &unit, 1, NULL, 0);
    publish(index, way, tag, depth, bucket_word(small[0]), bucket_word(small[0]), &small[1]);
    index_blocks_give(&index->blocks, NULL, 0, &small[1], 1);
    return OORT_OK;
}

/* Gives a bucket's table another number of chunks.  All entries must fit. */
static int32_t rebuild(oort_index *index, const path *way, uint32_t tag, bucket *b,
                       const index_entry *entries, uint32_t count, uint32_t chunks)
{
    uint32_t units[CHUNKS_MAX], small[2];
    uint32_t gone[2] = {id_of(index, b), 0};
    int32_t status = index_blocks_take(&index->blocks, units, chunks, small, 2);
    if (status != OORT_OK)
        return status;
    build(index, small[0], b->depth, b->next, units, chunks, entries, count);
    publish(index, way, tag, b->depth, bucket_word(small[0]), bucket_word(small[0]), &small[1]);
    gone[1] = small[1];
    index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 2);
    return OORT_OK;
}

/* Halves a bucket by its next tag bit.  Reorders the entries. */
static int32_t split(oort_index *index, const path *way, uint32_t tag, bucket *b,
                     index_entry *entries, uint32_t count)
{
    uint32_t units[2 * CHUNKS_MAX], small[3], gone[2];
    uint32_t depth = b->depth + 1u, low = 0, low_chunks, high_chunks;
    uint64_t low_word, high_word;
    int32_t status;
    for (uint32_t i = 0; i < count; i++) {
        if ((index_tag(entries[i]) >> (INDEX_TAG_BITS - depth) & 1) == 0) {
            index_entry swapped = entries[low];
            entries[low++] = entries[i];
            entries[i] = swapped;
        }
    }
    low_chunks = low == 0 ? 0 : chunks_for(low, GROWN_LOAD);
    high_chunks = low == count ? 0 : chunks_for(count - low, GROWN_LOAD);
    status = index_blocks_take(&index->blocks, units, low_chunks + high_chunks, small, 3);
    if (status != OORT_OK)
        return status;
    gone[0] = id_of(index, b);
    low_word = low == 0 ? 0 : bucket_word(small[0]);
    high_word = low == count ? 0 : bucket_word(small[1]);
    if (low_word != 0)
        build(index, small[0], depth, 0, units, low_chunks, entries, low);
    if (high_word != 0)
        build(index, small[1], depth, 0, units + low_chunks, high_chunks, entries + low,
              count - low);
    if (b->depth == NODE_BITS * way->levels) {
        node *fresh = index_block_at(&index->blocks, small[2]);
        for (uint32_t i = 0; i < NODE_CHILDREN; i++)
            fresh->child[i] = i < NODE_CHILDREN / 2 ? low_word : high_word;
        store_word(way->where[way->levels], node_word(small[2]));
        index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 1);
    } else {
        publish(index, way, tag, b->depth, low_word, high_word, &small[2]);
        gone[1] = small[2];
        index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 2);
    }
    if (low_word == 0)
        index_blocks_give(&index->blocks, NULL, 0, &small[0], 1);
    if (high_word == 0)
        index_blocks_give(&index->blocks, NULL, 0, &small[1], 1);
    return OORT_OK;
}

/* Puts a new bucket before a bucket that cannot grow any more.  The bucket has the greatest
 * possible depth, so only one child leads to it. */
static int32_t chain(oort_index *index, const path *way, const bucket *b)
{
    uint32_t unit, small;
    int32_t status = index_blocks_take(&index->blocks, &unit, 1, &small, 1);
    if (status != OORT_OK)
        return status;
    build(index, small, b->depth, id_of(index, b), &unit, 1, NULL, 0);
    store_word(way->where[way->levels], bucket_word(small));
    return OORT_OK;
}

static int32_t make_room(oort_index *index, const path *way, uint32_t tag, bucket *b)
{
    index_entry entries[BUCKET_ENTRIES_MAX + 1];
    uint32_t count, chunks;
    if (b->chunks == CHUNKS_MAX && b->depth == INDEX_TAG_BITS)
        return chain(index, way, b);
    count = index_gather(index, b, entries);
    if (b->chunks == CHUNKS_MAX)
        return split(index, way, tag, b, entries, count);
    chunks = chunks_for(count, GROWN_LOAD);
    if (chunks <= b->chunks)
        chunks = b->chunks + 1u;
    return rebuild(index, way, tag, b, entries, count, chunks);
}

/* ---- entries ------------------------------------------------------------ */

/* The entry exists once word 0 is stored, so word 0 is stored last. */
static void store_entry(index_entry *at, index_entry entry)
{
    OORT_ASSERT(index_location(entry) != 0, "an index entry has a location");
    __atomic_store_n(&at->word[1], entry.word[1], __ATOMIC_RELAXED);
    __atomic_store_n(&at->word[0], entry.word[0], __ATOMIC_RELEASE);
}

/* False: there is no free entry, or (limited) the table should grow first. */
static bool put_entry(const oort_index *index, bucket *b, index_entry entry, bool limited)
{
    uint32_t lines = b->chunks * CHUNK_LINES, capacity = capacity_of(b);
    uint32_t home = home_line(index_tag(entry), b->depth, lines);
    uint32_t line = home, tries = lines;
    if (limited && b->count * 100u >= capacity * GROW_LOAD)
        return false;
    if (limited && b->count * 100u >= capacity * SPARSE_LOAD && tries > DISPLACEMENT_MAX)
        tries = DISPLACEMENT_MAX;
    for (; tries > 0; tries--) {
        index_entry *at = line_at(index, b, line);
        for (uint32_t i = 0; i < LINE_ENTRIES; i++) {
            if (index_location(at[i]) != 0)
                continue;
            for (; home != line; home = home + 1 == lines ? 0 : home + 1)
                b->overflow[home / 64] |= UINT64_C(1) << home % 64;
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
            store_entry(&at[i], entry);
            if (b->count < capacity)
                b->count++;
            return true;
        }
        line = line + 1 == lines ? 0 : line + 1;
    }
    return false;
}

static bool may_grow(const bucket *b)
{
    return b->chunks < CHUNKS_MAX || b->depth < INDEX_TAG_BITS;
}

int32_t index_insert(oort_index *index, uint64_t hash, uint8_t database, uint64_t location,
                     uint64_t stamp)
{
    uint32_t slot = index_hash_slot(hash), tag = index_hash_tag(hash);
    index_entry entry = {{location << INDEX_TAG_BITS | tag, (uint64_t)database << 60 | stamp}};
    bucket *b = find_bucket(index, slot, tag);
    if (location == 0 || location >> 40 != 0 || stamp >> 60 != 0 || database >= OORT_DATABASES)
        return OORT_ERR_ARGUMENT;
    while (b == NULL || !put_entry(index, b, entry, may_grow(b))) {
        path way;
        int32_t status;
        (void)find_path(index, slot, tag, &way);
        status = b == NULL ? create_bucket(index, &way, tag) : make_room(index, &way, tag, b);
        if (status != OORT_OK)
            return b != NULL && put_entry(index, b, entry, false) ? OORT_OK : status;
        b = find_bucket(index, slot, tag);
    }
    return OORT_OK;
}

/* The caller holds the slot, and has inserted and erased nothing since index_next. */
static void check_cursor(const cursor *c)
{
    OORT_ASSERT(c->current != NULL, "a cursor is used while it is at an entry");
    OORT_ASSERT(index_location(*c->current) != 0 &&
                    index_tag(*c->current) == index_hash_tag(c->hash) &&
                    index_database(*c->current) == c->database,
                "a cursor is used while it is valid");
}

void index_replace(oort_index *index, index_cursor *opaque, uint64_t location, uint64_t stamp)
{
    cursor *c = (cursor *)(void *)opaque;
    index_entry entry = {{location << INDEX_TAG_BITS | index_hash_tag(c->hash),
                          (uint64_t)c->database << 60 | stamp}};
    (void)index;
    check_cursor(c);
    OORT_ASSERT(location >> 40 == 0 && stamp >> 60 == 0, "a location has 40 bits, a stamp 60");
    store_entry(c->current, entry);
}

/* Takes an empty bucket out of its chain or trie, and with it the nodes that lead nowhere else. */
static void remove_bucket(oort_index *index, path *way, uint32_t tag, bucket *b, uint64_t word)
{
    bucket *head = index_block_at(&index->blocks, word_id(word));
    uint32_t gone[2] = {id_of(index, b), 0};
    uint32_t first = 0, width = 1;
    if (head != b) {
        while (head->next != gone[0])
            head = index_block_at(&index->blocks, head->next);
        __atomic_store_n(&head->next, b->next, __ATOMIC_RELEASE);
        index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 1);
        return;
    }
    if (b->next != 0) {
        store_word(way->where[way->levels], bucket_word(b->next));
        index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 1);
        return;
    }
    if (way->levels > 0)
        child_range(way, tag, b->depth, &first, &width);
    while (way->levels > 0) {
        const node *parent = index_block_at(&index->blocks, way->node[way->levels - 1]);
        uint64_t others = 0;
        for (uint32_t i = 0; i < NODE_CHILDREN; i++)
            others |= i - first < width ? 0 : parent->child[i];
        if (others != 0)
            break;
        way->levels--;
        width = 1;
        first = way->levels == 0 ? 0 : child_of(tag, way->levels - 1);
    }
    /* The subtree below where[levels] now holds only this bucket. */
    if (width > 1) {
        uint32_t spare;
        if (index_blocks_take(&index->blocks, NULL, 0, &spare, 1) != OORT_OK)
            return; /* an empty bucket does no harm */
        publish(index, way, tag, b->depth, 0, 0, &spare);
        gone[1] = spare;
        index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 2);
        return;
    }
    word = load_word(way->where[way->levels]);
    store_word(way->where[way->levels], 0);
    for (uint32_t level = way->levels; (word & WORD_KIND) == WORD_NODE; level++) {
        const node *at = index_block_at(&index->blocks, word_id(word));
        uint32_t id = word_id(word);
        word = at->child[child_of(tag, level)];
        index_blocks_give(&index->blocks, NULL, 0, &id, 1);
    }
    index_blocks_give(&index->blocks, b->chunk, b->chunks, gone, 1);
}

bool index_settle(oort_index *index, uint32_t slot, uint32_t tag, bucket *b)
{
    index_entry entries[BUCKET_ENTRIES_MAX + 1];
    path way;
    uint64_t word;
    uint32_t count;
    if (b->count != 0 && (b->chunks == 1 || b->count * 100u >= capacity_of(b) * SHRINK_LOAD))
        return false;
    count = index_gather(index, b, entries);
    b->count = (uint16_t)count;
    word = find_path(index, slot, tag, &way);
    if (count == 0) {
        remove_bucket(index, &way, tag, b, word);
        return true;
    }
    if (word_id(word) != id_of(index, b) || count * 100u >= capacity_of(b) * SHRINK_LOAD ||
        chunks_for(count, SHRUNK_LOAD) >= b->chunks)
        return false;
    return rebuild(index, &way, tag, b, entries, count, chunks_for(count, SHRUNK_LOAD)) == OORT_OK;
}

void index_erase_at(bucket *b, index_entry *at)
{
    store_word(&at->word[0], 0);
    if (b->count > 0)
        b->count--;
}

void index_erase(oort_index *index, index_cursor *opaque)
{
    cursor *c = (cursor *)(void *)opaque;
    check_cursor(c);
    index_erase_at(c->at, c->current);
    c->current = NULL;
    if (index_settle(index, index_hash_slot(c->hash), index_hash_tag(c->hash), c->at))
        index_seek(index, c->hash, (uint8_t)c->database, opaque);
}

/* ---- the file ----------------------------------------------------------- */

oort_index *index_create(const char *path_name, uint64_t reserve_bytes, oort_error *error)
{
    oort_index *index = malloc(sizeof *index);
    if (index == NULL) {
        (void)oort_fail(error, OORT_ERR_NOMEM, 0, "%s: out of memory", path_name);
        return NULL;
    }
    if (index_blocks_create(&index->blocks, path_name, reserve_bytes, error) != OORT_OK) {
        free(index);
        return NULL;
    }
    return index;
}

oort_index *index_open(const char *path_name, uint64_t reserve_bytes, oort_error *error)
{
    oort_index *index = malloc(sizeof *index);
    if (index == NULL) {
        (void)oort_fail(error, OORT_ERR_NOMEM, 0, "%s: out of memory", path_name);
        return NULL;
    }
    if (index_blocks_open(&index->blocks, path_name, reserve_bytes, error) != OORT_OK) {
        free(index);
        return NULL;
    }
    if (!index_claim_structure(index)) {
        (void)index_blocks_close(&index->blocks, false, NULL);
        free(index);
        (void)oort_fail(error, OORT_ERR_DAMAGED, 0,
                        "%s: the index's structure is damaged; it must be rebuilt from the log",
                        path_name);
        return NULL;
    }
    return index;
}

int32_t index_close(oort_index *index, bool sync, oort_error *error)
{
    int32_t status = index_blocks_close(&index->blocks, sync, error);
    free(index);
    return status;
}

void *index_owner_area(oort_index *index)
{
    return index_blocks_owner(&index->blocks);
}

uint64_t index_file_bytes(oort_index *index)
{
    return __atomic_load_n(&index->blocks.backed, __ATOMIC_RELAXED);
}

int index_fd(oort_index *index)
{
    return index->blocks.fd;
}

int32_t index_clear(oort_index *index, oort_error *error)
{
    return index_blocks_clear(&index->blocks, error);
}
