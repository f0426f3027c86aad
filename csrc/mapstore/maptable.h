/*
 * maptable.h: an ordered hash table over the keys of one cluster slot, the part the
 * in-memory store is made of.
 *
 * A bucket is chosen by the top bits of an entry's tag (the 24 ring hash bits below the slot),
 * and a bucket's list is kept in hash order, so walking the buckets walks the
 * positions a SCAN cursor counts in, whatever the size of the table.
 *
 * The table doubles and halves a few buckets at a time, with every put and
 * take: old and new buckets live side by side, divided by the tag moved so far.
 *
 * Threads: the caller serialises everything that touches one table.
 */
#ifndef OORT_MAPTABLE_H
#define OORT_MAPTABLE_H

#include "oort.h"

#include <stdatomic.h>

#define MAPTABLE_TAG_BITS 24
#define MAPTABLE_TAGS (UINT32_C(1) << MAPTABLE_TAG_BITS)

/* One key and its value in one block: header, value bytes, key bytes. */
typedef struct map_entry {
    struct map_entry *next;
    uint64_t hash;
    uint64_t stamp;
    int64_t expiry_ms;
    uint32_t value_size;
    uint32_t key_size;
    _Atomic uint32_t references; /* one for being in the table, one for every pin */
    uint8_t database;
    uint8_t bytes[];
} map_entry;

typedef struct map_table {
    map_entry **buckets; /* NULL: nothing was ever put */
    map_entry **old;     /* NULL unless it is being resized */
    uint64_t count;
    /* No entry expires before it; INT64_MAX: none does.  The owner's field. */
    int64_t first_expiry_ms;
    uint32_t moved; /* while resizing: tags below it are in buckets, the others in old */
    uint8_t bits;   /* 1 << bits buckets */
    uint8_t old_bits;
} map_table;

static inline uint32_t map_slot(uint64_t hash)
{
    return (uint32_t)(hash >> 50);
}
static inline uint32_t map_tag(uint64_t hash)
{
    return (uint32_t)(hash >> 26) & (MAPTABLE_TAGS - 1);
}
static inline const uint8_t *map_entry_key(const map_entry *entry)
{
    return entry->bytes + entry->value_size;
}

/* Make room for a first entry; afterwards maptable_put cannot fail.  OORT_OK or OORT_ERR_NOMEM. */
int32_t maptable_prepare(map_table *table);
map_entry *maptable_find(const map_table *table, const oort_key *key);
/* Link an entry that has no equal in the table, or one in the place of its equal. */
void maptable_put(map_table *table, map_entry *entry);
void maptable_replace(map_table *table, map_entry *old, map_entry *entry);
/* Unlink an entry that is in the table. */
void maptable_take(map_table *table, map_entry *entry);
/* In order: the first entry with this tag or a larger one; the one after an entry.  NULL: none. */
map_entry *maptable_from(const map_table *table, uint32_t tag);
map_entry *maptable_after(const map_table *table, const map_entry *entry);
uint64_t maptable_bytes(const map_table *table);
/* Free the buckets; the entries are the caller's. */
void maptable_free(map_table *table);

#endif
