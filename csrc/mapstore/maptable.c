/*
 * maptable.c: the ordered hash table of maptable.h.
 *
 * Resizing moves ranges of tags.  A range is the tags of one bucket in the smaller of the two
 * bucket arrays.  Lists are sorted and ranges move in order, so a move splits lists (growth) or
 * joins them (shrinking) and never sorts.  A few ranges move with every put and take, so a table
 * that doubles has moved all of them long before it doubles again.
 */
#include "mapstore/maptable.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEAST_BITS = 2,
    RANGES_A_STEP = 4,
    SHRINK_BELOW = 8 /* a table halves when it needs fewer than one in so many of its buckets */
};

static map_entry **bucket_of(const map_table *table, uint32_t tag, uint32_t *end)
{
    bool in_old = table->old != NULL && tag >= table->moved;
    uint32_t shift = MAPTABLE_TAG_BITS - (in_old ? table->old_bits : table->bits);
    uint32_t bucket = tag >> shift;

    if (end != NULL)
        *end = (bucket + 1) << shift;
    return (in_old ? table->old : table->buckets) + bucket;
}

static void move_range(map_table *table)
{
    uint8_t coarse = table->bits < table->old_bits ? table->bits : table->old_bits;
    uint32_t end = table->moved + (UINT32_C(1) << (MAPTABLE_TAG_BITS - coarse));
    uint32_t old_shift = MAPTABLE_TAG_BITS - table->old_bits;
    uint32_t shift = MAPTABLE_TAG_BITS - table->bits;
    uint32_t into = UINT32_MAX;
    map_entry **tail = NULL;

    for (uint32_t from = table->moved >> old_shift; from < end >> old_shift; from++) {
        map_entry *entry = table->old[from];
        while (entry != NULL) {
            map_entry *next = entry->next;
            uint32_t bucket = map_tag(entry->hash) >> shift;
            if (bucket != into) {
                into = bucket;
                tail = &table->buckets[bucket];
            }
            entry->next = NULL;
            *tail = entry;
            tail = &entry->next;
            entry = next;
        }
    }
    table->moved = end;
    if (end == MAPTABLE_TAGS) {
        free(table->old);
        table->old = NULL;
    }
}

/* Without memory for new buckets the table stays as it is.  Its lists get longer, but nothing
 * fails. */
static void resize(map_table *table, uint8_t bits)
{
    map_entry **buckets = calloc((size_t)1 << bits, sizeof *buckets);

    if (buckets == NULL)
        return;
    table->old = table->buckets;
    table->old_bits = table->bits;
    table->moved = 0;
    table->buckets = buckets;
    table->bits = bits;
}

static void step(map_table *table)
{
    if (table->old == NULL) {
        uint64_t buckets = UINT64_C(1) << table->bits;
        if (table->count > buckets && table->bits < MAPTABLE_TAG_BITS)
            resize(table, (uint8_t)(table->bits + 1));
        else if (table->count < buckets / SHRINK_BELOW && table->bits > LEAST_BITS)
            resize(table, (uint8_t)(table->bits - 1));
    }
    for (int ranges = 0; table->old != NULL && ranges < RANGES_A_STEP; ranges++)
        move_range(table);
}

int32_t maptable_prepare(map_table *table)
{
    if (table->buckets != NULL)
        return OORT_OK;
    table->buckets = calloc((size_t)1 << LEAST_BITS, sizeof *table->buckets);
    if (table->buckets == NULL)
        return OORT_ERR_NOMEM;
    table->bits = LEAST_BITS;
    table->first_expiry_ms = INT64_MAX;
    return OORT_OK;
}

map_entry *maptable_find(const map_table *table, const oort_key *key)
{
    map_entry *entry;

    if (table->buckets == NULL)
        return NULL;
    entry = *bucket_of(table, map_tag(key->hash), NULL);
    while (entry != NULL && entry->hash < key->hash)
        entry = entry->next;
    for (; entry != NULL && entry->hash == key->hash; entry = entry->next)
        if (entry->key_size == key->size &&
            (key->size == 0 || memcmp(map_entry_key(entry), key->data, key->size) == 0))
            return entry;
    return NULL;
}

/* The pointer that leads to an entry of the table. */
static map_entry **link_to(const map_table *table, const map_entry *entry)
{
    map_entry **link = bucket_of(table, map_tag(entry->hash), NULL);

    while (*link != entry)
        link = &(*link)->next;
    return link;
}

void maptable_put(map_table *table, map_entry *entry)
{
    map_entry **link;

    step(table);
    link = bucket_of(table, map_tag(entry->hash), NULL);
    while (*link != NULL && (*link)->hash < entry->hash)
        link = &(*link)->next;
    entry->next = *link;
    *link = entry;
    table->count++;
}

void maptable_replace(map_table *table, map_entry *old, map_entry *entry)
{
    map_entry **link = link_to(table, old);

    entry->next = old->next;
    *link = entry;
}

void maptable_take(map_table *table, map_entry *entry)
{
    map_entry **link = link_to(table, entry);

    *link = entry->next;
    table->count--;
    step(table);
}

map_entry *maptable_from(const map_table *table, uint32_t tag)
{
    if (table->buckets == NULL || table->count == 0)
        return NULL;
    while (tag < MAPTABLE_TAGS) {
        uint32_t end;
        map_entry *entry = *bucket_of(table, tag, &end);
        while (entry != NULL && map_tag(entry->hash) < tag)
            entry = entry->next;
        if (entry != NULL)
            return entry;
        tag = end;
    }
    return NULL;
}

map_entry *maptable_after(const map_table *table, const map_entry *entry)
{
    uint32_t end;

    if (entry->next != NULL)
        return entry->next;
    (void)bucket_of(table, map_tag(entry->hash), &end);
    return maptable_from(table, end);
}

uint64_t maptable_bytes(const map_table *table)
{
    uint64_t buckets = table->buckets != NULL ? UINT64_C(1) << table->bits : 0;

    if (table->old != NULL)
        buckets += UINT64_C(1) << table->old_bits;
    return buckets * sizeof(map_entry *);
}

void maptable_free(map_table *table)
{
    free(table->buckets);
    free(table->old);
    *table = (map_table){0};
}
