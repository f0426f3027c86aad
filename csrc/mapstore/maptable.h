/*
 * maptable.h: an ordered hash table over the keys of one cluster slot.  The in-memory store
 * consists of these tables.
 *
 * The top bits of an entry's tag (the 24 ring hash bits below the slot) choose its bucket.  The
 * list of a bucket is sorted by hash.  A walk over the buckets is therefore a walk over SCAN's
 * positions in order, whatever the size of the table.
 *
 * The table doubles and halves a few buckets at a time, with every put and take.  Meanwhile the old
 * and the new buckets exist side by side; `moved` is the first tag that is still in the old
 * buckets.
 *
 * Threads: the caller serialises all calls for one table.
 */
#ifndef OORT_MAPTABLE_H
#define OORT_MAPTABLE_H

#include "oort.h"

#include <stdatomic.h>

#define MAPTABLE_TAG_BITS 24
#define MAPTABLE_TAGS (UINT32_C(1) << MAPTABLE_TAG_BITS)

/* A key and its value in one block: the header, the value's bytes, the key's bytes. */
typedef struct map_entry {
    struct map_entry *next;
    uint64_t hash;
    uint64_t stamp;
    int64_t expiry_ms;
    uint32_t value_size;
    uint32_t key_size;
    _Atomic uint32_t references; /* one for the table, one for every pin */
    uint8_t database;
    uint8_t bytes[];
} map_entry;

typedef struct map_table {
    map_entry **buckets; /* NULL: the table never had an entry */
    map_entry **old;     /* NULL unless the table is being resized */
    uint64_t count;
    /* No entry expires earlier; INT64_MAX: no entry expires.  The caller maintains this field. */
    int64_t first_expiry_ms;
    uint32_t moved; /* while resizing: smaller tags are in buckets, the others in old */
    uint8_t bits;   /* there are 1 << bits buckets */
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

/* Makes room for the first entry.  After that maptable_put cannot fail.  OORT_OK or
 * OORT_ERR_NOMEM. */
int32_t maptable_prepare(map_table *table);
map_entry *maptable_find(const map_table *table, const oort_key *key);
/* maptable_put links an entry whose key is not in the table.  maptable_replace puts an entry in the
 * place of the entry with the same key. */
void maptable_put(map_table *table, map_entry *entry);
void maptable_replace(map_table *table, map_entry *old, map_entry *entry);
/* Unlinks an entry of the table. */
void maptable_take(map_table *table, map_entry *entry);
/* In order: the first entry with this tag or a larger tag, and the next entry after an entry.
 * NULL if no such entry exists. */
map_entry *maptable_from(const map_table *table, uint32_t tag);
map_entry *maptable_after(const map_table *table, const map_entry *entry);
uint64_t maptable_bytes(const map_table *table);
/* Frees the buckets.  The entries belong to the caller. */
void maptable_free(map_table *table);

#endif
