/*
 * index_slot.c: operations on whole slots: visits, scans in the order of tags, and the check at
 * open.
 *
 * Visits and scans go from one range of tags to the next and look up each range from the directory,
 * so a bucket may be replaced or removed between two steps.
 */
#include "index/index_trie.h"

#include <string.h>

/* The end of the range of tags that leads to the same word (word: the result of find_path). */
static uint32_t range_end(const oort_index *index, const path *way, uint32_t tag, uint64_t word)
{
    uint32_t bits = NODE_BITS * way->levels;
    if (word != 0)
        bits = ((const bucket *)index_block_at(&index->blocks, word_id(word)))->depth;
    return ((tag >> (INDEX_TAG_BITS - bits)) + 1) << (INDEX_TAG_BITS - bits);
}

/* False: the visitor stopped. */
static bool visit_bucket(oort_index *index, uint32_t slot, bucket *b, index_visitor visitor,
                         void *context, bool *erased)
{
    for (uint32_t line = 0; line < b->chunks * CHUNK_LINES; line++) {
        index_entry *at = line_at(index, b, line);
        for (uint32_t i = 0; i < LINE_ENTRIES; i++) {
            int verdict;
            if (index_location(at[i]) == 0)
                continue;
            verdict = visitor(context, slot, at[i]);
            if (verdict == INDEX_STOP)
                return false;
            if (verdict == INDEX_ERASE) {
                index_erase_at(b, &at[i]);
                *erased = true;
            }
        }
    }
    return true;
}

void index_visit_slot(oort_index *index, uint32_t slot, index_visitor visitor, void *context)
{
    bool more = true;
    for (uint32_t tag = 0; more && tag < 1u << INDEX_TAG_BITS;) {
        path way;
        uint64_t word = find_path(index, slot, tag, &way);
        uint32_t end = range_end(index, &way, tag, word);
        uint32_t id = word_id(word);
        while (more && id != 0) {
            bucket *b = index_block_at(&index->blocks, id);
            bool erased = false;
            id = b->next;
            more = visit_bucket(index, slot, b, visitor, context, &erased);
            if (erased)
                (void)index_settle(index, slot, tag, b);
        }
        tag = end;
    }
}

/* Lines stand in the order of tags, so the entries are nearly sorted already. */
static void sort_by_tag(index_entry *entries, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        index_entry moved = entries[i];
        uint32_t at = i;
        for (; at > 0 && index_tag(entries[at - 1]) > index_tag(moved); at--)
            entries[at] = entries[at - 1];
        entries[at] = moved;
    }
}

/* Appends sorted entries, one run of equal tags at a time, while whole runs fit.  Returns the tag
 * of the run that did not fit, or end. */
static uint32_t append_runs(const index_entry *from, uint32_t from_count, uint32_t end,
                            index_entry *entries, uint32_t capacity, uint32_t *count,
                            uint32_t *need)
{
    for (uint32_t i = 0; i < from_count;) {
        uint32_t run = 1;
        while (i + run < from_count && index_tag(from[i + run]) == index_tag(from[i]))
            run++;
        if (run > capacity - *count) {
            *need = run;
            return index_tag(from[i]);
        }
        memcpy(entries + *count, from + i, run * sizeof *from);
        *count += run;
        i += run;
    }
    return end;
}

/* As append_runs, for a chain, which holds only one tag. */
static uint32_t append_chain(const oort_index *index, const bucket *head, uint32_t tag,
                             index_entry *entries, uint32_t capacity, uint32_t *count,
                             uint32_t *need)
{
    index_entry found[BUCKET_ENTRIES_MAX + 1];
    uint32_t total = 0, room = capacity - *count;
    for (const bucket *b = head;; b = index_block_at(&index->blocks, b->next)) {
        uint32_t got = index_gather(index, b, found), kept = 0;
        for (uint32_t i = 0; i < got; i++)
            if (index_tag(found[i]) == tag)
                found[kept++] = found[i];
        if (total <= room && kept <= room - total)
            memcpy(entries + *count + total, found, kept * sizeof *found);
        total += kept;
        if (b->next == 0)
            break;
    }
    if (total > room) {
        *need = total;
        return tag;
    }
    *count += total;
    return tag + 1;
}

int32_t index_scan_slot(oort_index *index, uint32_t slot, uint32_t tag, index_entry *entries,
                        uint32_t capacity, uint32_t *count, uint32_t *next_tag)
{
    index_entry found[BUCKET_ENTRIES_MAX + 1];
    uint32_t need = 0;
    *count = 0;
    while (tag < 1u << INDEX_TAG_BITS) {
        path way;
        uint64_t word = find_path(index, slot, tag, &way);
        uint32_t end = range_end(index, &way, tag, word);
        if (word != 0) {
            const bucket *b = index_block_at(&index->blocks, word_id(word));
            uint32_t stop;
            if (b->next != 0) {
                stop = append_chain(index, b, tag, entries, capacity, count, &need);
            } else {
                uint32_t got = index_gather(index, b, found), kept = 0;
                for (uint32_t i = 0; i < got; i++)
                    if (index_tag(found[i]) >= tag && index_tag(found[i]) < end)
                        found[kept++] = found[i];
                sort_by_tag(found, kept);
                stop = append_runs(found, kept, end, entries, capacity, count, &need);
            }
            if (stop != end) {
                *next_tag = stop;
                if (*count > 0)
                    return OORT_OK;
                *count = need;
                return OORT_ERR_TOO_BIG;
            }
        }
        tag = end;
        if (*count == capacity)
            break;
    }
    *next_tag = tag < 1u << INDEX_TAG_BITS ? tag : INDEX_SLOT_END;
    return OORT_OK;
}

/* ---- the check at open -------------------------------------------------- */

static bool claim_bucket(oort_index *index, uint64_t word, uint32_t least_depth,
                         uint32_t most_depth)
{
    uint32_t id = word_id(word);
    do {
        bucket *b = index_block_at(&index->blocks, id);
        if (!index_blocks_claim_small(&index->blocks, id) || b->chunks == 0 ||
            b->chunks > CHUNKS_MAX || b->depth < least_depth || b->depth > most_depth ||
            (b->next != 0 && b->depth != INDEX_TAG_BITS))
            return false;
        for (uint32_t i = 0; i < b->chunks; i++)
            if (!index_blocks_claim_unit(&index->blocks, b->chunk[i]))
                return false;
        if (b->count > capacity_of(b))
            b->count = (uint16_t)capacity_of(b);
        least_depth = INDEX_TAG_BITS;
        id = b->next;
    } while (id != 0);
    return true;
}

static bool claim_node(oort_index *index, uint64_t word, uint32_t level)
{
    const node *at = index_block_at(&index->blocks, word_id(word));
    uint32_t bits = NODE_BITS * (level + 1), width;
    if (level == LEVELS_MAX || !index_blocks_claim_small(&index->blocks, word_id(word)))
        return false;
    for (uint32_t i = 0; i < NODE_CHILDREN; i += width) {
        uint64_t child = at->child[i];
        width = 1;
        if (child == 0)
            continue;
        if (child >> 34 != 0)
            return false;
        if ((child & WORD_KIND) == WORD_NODE) {
            if (!claim_node(index, child, level + 1))
                return false;
            continue;
        }
        if ((child & WORD_KIND) != WORD_BUCKET ||
            !claim_bucket(index, child, bits - NODE_BITS + 1, bits))
            return false;
        width <<= bits - ((const bucket *)index_block_at(&index->blocks, word_id(child)))->depth;
        if (i % width != 0)
            return false;
        for (uint32_t same = i; same < i + width; same++)
            if (at->child[same] != child)
                return false;
    }
    return true;
}

bool index_claim_structure(oort_index *index)
{
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++) {
        uint64_t word = index->blocks.directory[slot];
        bool sound = word == 0;
        if (word >> 34 != 0)
            return false;
        if ((word & WORD_KIND) == WORD_BUCKET)
            sound = claim_bucket(index, word, 0, 0);
        else if ((word & WORD_KIND) == WORD_NODE)
            sound = claim_node(index, word, 0);
        if (!sound)
            return false;
    }
    return true;
}
