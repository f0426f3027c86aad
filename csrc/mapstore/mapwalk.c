/*
 * mapwalk.c: operations on whole databases of the in-memory store: flush, SCAN, a random key, and
 * the removal of expired entries that nobody reads.
 *
 * No operation holds a lock for long.  A scan holds one stripe while it is in one slot.  The sweep
 * holds a stripe for a few hundred entries.  A flush takes all stripes only to take the tables out.
 */
#include "mapstore/mapstore.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

enum {
    SWEEP_INTERVAL_MS = 100,
    SWEEP_ENTRIES = 65536, /* most entries looked at in one interval */
    SWEEP_HOLD = 512,      /* most entries looked at under one lock */
    WALK_LIMIT = 64        /* for a random key, larger tables are sampled and not walked */
};

void map_free_tables(map_table *tables)
{
    if (tables == NULL)
        return;
    for (uint32_t slot = 0; slot < MAP_SLOTS; slot++) {
        map_table *table = &tables[slot];
        map_entry *entry = maptable_from(table, 0);
        while (entry != NULL) {
            map_entry *next = maptable_after(table, entry);
            map_release(entry);
            entry = next;
        }
        maptable_free(table);
    }
    free(tables);
}

/* Other sessions wait only while the tables are taken out.  The tables are freed afterwards. */
int32_t map_flush(oort_session *base, int32_t database)
{
    map_session *session = (map_session *)base;
    map_store *store = map_store_of(session);
    map_table *taken[OORT_DATABASES] = {NULL};
    int32_t status = map_check_idle(session);

    if (status != OORT_OK)
        return status;
    for (uint32_t i = 0; i < MAP_STRIPES; i++)
        (void)pthread_mutex_lock(&store->stripes[i].mutex);
    for (uint8_t i = 0; i < OORT_DATABASES; i++)
        if (database < 0 || database == i)
            taken[i] = atomic_exchange(&store->tables[i], NULL);
    for (uint32_t i = 0; i < MAP_STRIPES; i++) {
        map_stripe *stripe = &store->stripes[i];
        for (uint8_t at = 0; at < OORT_DATABASES; at++) {
            if (taken[at] == NULL)
                continue;
            atomic_store(&stripe->of[at].keys, 0);
            atomic_store(&stripe->of[at].entry_bytes, 0);
            atomic_store(&stripe->of[at].table_bytes, 0);
        }
    }
    for (uint32_t i = MAP_STRIPES; i-- > 0;)
        (void)pthread_mutex_unlock(&store->stripes[i].mutex);
    for (uint8_t i = 0; i < OORT_DATABASES; i++)
        map_free_tables(taken[i]);
    return OORT_OK;
}

static int32_t deliver(oort_scan *scan, const map_entry *entry)
{
    uint64_t needed = sizeof(uint32_t) + (uint64_t)entry->key_size;

    if (needed > scan->capacity - scan->used)
        return OORT_ERR_TOO_BIG;
    memcpy(scan->buffer + scan->used, &entry->key_size, sizeof(uint32_t));
    if (entry->key_size != 0)
        memcpy(scan->buffer + scan->used + sizeof(uint32_t), map_entry_key(entry), entry->key_size);
    scan->used += needed;
    scan->count++;
    return OORT_OK;
}

/* Delivers all live entries of the position of *at, or none.  Moves *at past the position. */
static int32_t scan_position(const map_table *table, map_entry **at, int64_t now_ms,
                             oort_scan *scan, uint64_t *visited)
{
    uint32_t tag = map_tag((*at)->hash);
    uint64_t used = scan->used;
    uint64_t delivered = scan->count;
    uint64_t needed = 0;
    int32_t status = OORT_OK;

    for (; *at != NULL && map_tag((*at)->hash) == tag; *at = maptable_after(table, *at)) {
        ++*visited;
        if (map_expired(*at, now_ms))
            continue;
        needed += sizeof(uint32_t) + (uint64_t)(*at)->key_size;
        if (status == OORT_OK)
            status = deliver(scan, *at);
    }
    if (status != OORT_OK) {
        scan->used = used;
        scan->count = delivered;
        scan->capacity_needed = needed;
    }
    return status;
}

int32_t map_scan(oort_session *base, uint8_t database, oort_scan *scan_out)
{
    map_session *session = (map_session *)base;
    map_store *store = map_store_of(session);
    uint64_t want = scan_out->want != 0 ? scan_out->want : 1;
    uint32_t slot = (uint32_t)(scan_out->position >> MAPTABLE_TAG_BITS);
    uint32_t tag = (uint32_t)scan_out->position & (MAPTABLE_TAGS - 1);
    uint64_t visited = 0;
    int32_t status = map_check_idle(session);

    if (status != OORT_OK)
        return status;
    scan_out->used = 0;
    scan_out->count = 0;
    scan_out->capacity_needed = 0;
    if (scan_out->position >> (MAPTABLE_TAG_BITS + 14) != 0)
        slot = MAP_SLOTS; /* the cursor is past every position */
    for (; slot < MAP_SLOTS; slot++, tag = 0) {
        map_stripe *stripe = &store->stripes[slot / MAP_SLOTS_A_STRIPE];
        map_table *table;
        map_entry *at;
        if (map_counted(&stripe->of[database].keys) == 0)
            continue;
        (void)pthread_mutex_lock(&stripe->mutex);
        table = map_table_of(store, database, slot, false);
        at = table != NULL ? maptable_from(table, tag) : NULL;
        while (at != NULL && visited < want && status == OORT_OK) {
            tag = map_tag(at->hash);
            status = scan_position(table, &at, base->now_us / 1000, scan_out, &visited);
            if (status == OORT_OK && at != NULL)
                tag = map_tag(at->hash);
        }
        (void)pthread_mutex_unlock(&stripe->mutex);
        if (status != OORT_OK && scan_out->count == 0)
            return oort_fail(&base->error, status, 0, "the scan buffer needs %llu bytes",
                             (unsigned long long)scan_out->capacity_needed);
        if (at != NULL || status != OORT_OK) {
            scan_out->position = (uint64_t)slot << MAPTABLE_TAG_BITS | tag;
            return OORT_OK;
        }
        if (visited >= want && slot + 1 < MAP_SLOTS) {
            scan_out->position = (uint64_t)(slot + 1) << MAPTABLE_TAG_BITS;
            return OORT_OK;
        }
    }
    scan_out->position = 0;
    return OORT_OK;
}

static uint64_t random_below(map_session *session, uint64_t limit)
{
    session->random ^= session->random << 13;
    session->random ^= session->random >> 7;
    session->random ^= session->random << 17;
    return (session->random >> 16) % limit;
}

/* A random key of a stripe; NULL: the stripe has none. */
static map_entry *random_entry(map_session *session, uint8_t database, uint32_t at,
                               map_table **table)
{
    map_store *store = map_store_of(session);
    uint64_t keys = map_counted(&store->stripes[at].of[database].keys);
    uint64_t chosen = keys != 0 ? random_below(session, keys) : 0;
    uint32_t slot = at * MAP_SLOTS_A_STRIPE;
    map_entry *entry;

    if (keys == 0)
        return NULL;
    *table = map_table_of(store, database, slot, false);
    for (; chosen >= (*table)->count; ++*table)
        chosen -= (*table)->count;
    if ((*table)->count <= WALK_LIMIT) {
        entry = maptable_from(*table, 0);
    } else {
        chosen = random_below(session, WALK_LIMIT / 4);
        entry = maptable_from(*table, (uint32_t)random_below(session, MAPTABLE_TAGS));
    }
    while (chosen > 0 || entry == NULL) {
        if (entry != NULL) {
            entry = maptable_after(*table, entry);
            chosen--;
        }
        if (entry == NULL)
            entry = maptable_from(*table, 0);
    }
    return entry;
}

int32_t map_random_key(oort_session *base, uint8_t database, uint8_t *buffer, uint32_t *size)
{
    map_session *session = (map_session *)base;
    map_store *store = map_store_of(session);
    int32_t status = map_check_idle(session);

    if (status != OORT_OK)
        return status;
    for (;;) {
        uint64_t total = 0;
        uint64_t chosen;
        map_entry *entry;
        map_table *table;
        uint32_t at = 0;
        oort_key where = {.database = database};
        for (uint32_t i = 0; i < MAP_STRIPES; i++)
            total += map_counted(&store->stripes[i].of[database].keys);
        if (total == 0)
            return OORT_MISSING;
        chosen = random_below(session, total);
        for (; at < MAP_STRIPES - 1; at++) {
            uint64_t keys = map_counted(&store->stripes[at].of[database].keys);
            if (chosen < keys)
                break;
            chosen -= keys;
        }
        where.hash = (uint64_t)at * MAP_SLOTS_A_STRIPE << 50;
        (void)map_lock(base, &where, 1);
        entry = random_entry(session, database, at, &table);
        if (entry != NULL && !map_expired(entry, base->now_us / 1000)) {
            *size = entry->key_size;
            memcpy(buffer, map_entry_key(entry), entry->key_size);
            map_unlock(base);
            return OORT_OK;
        }
        if (entry != NULL)
            map_change(session, table, entry, NULL);
        map_unlock(base);
    }
}

/* ---- active expiry ------------------------------------------------------- */

/* The state of a sweep, which visits every table that may hold an expired entry. */
typedef struct sweep {
    uint32_t slot;
    uint32_t tag;
    uint8_t database;
    int64_t first_expiry_ms; /* of the entries that were kept in this table */
} sweep;

/* Sweeps a table under one lock.  Returns the number of entries that it looked at. */
static uint32_t sweep_table(map_store *store, sweep *at, int64_t now_ms)
{
    map_stripe *stripe = &store->stripes[at->slot / MAP_SLOTS_A_STRIPE];
    uint32_t looked_at = 0;
    map_entry *entry = NULL;
    map_table *table;

    (void)pthread_mutex_lock(&stripe->mutex);
    table = map_table_of(store, at->database, at->slot, false);
    if (table != NULL && table->count != 0 && (at->tag != 0 || table->first_expiry_ms <= now_ms)) {
        if (at->tag == 0) {
            /* Every later write with an expiry lowers it again. */
            table->first_expiry_ms = INT64_MAX;
            at->first_expiry_ms = INT64_MAX;
        }
        entry = maptable_from(table, at->tag);
        /* Stops only between two tags, because the next call begins at a tag. */
        while (entry != NULL && (looked_at < SWEEP_HOLD || map_tag(entry->hash) == at->tag)) {
            map_entry *next = maptable_after(table, entry);
            at->tag = map_tag(entry->hash);
            if (map_expired(entry, now_ms)) {
                map_exchange(store, table, entry, NULL);
                metric_add(&store->base.metrics.expired_keys, 1);
                map_release(entry);
            } else if (entry->expiry_ms != 0 && entry->expiry_ms < at->first_expiry_ms) {
                at->first_expiry_ms = entry->expiry_ms;
            }
            looked_at++;
            entry = next;
        }
        if (at->first_expiry_ms < table->first_expiry_ms)
            table->first_expiry_ms = at->first_expiry_ms;
    }
    at->tag = entry != NULL ? map_tag(entry->hash) : 0;
    (void)pthread_mutex_unlock(&stripe->mutex);
    return looked_at;
}

static void sweep_some(map_store *store, sweep *at)
{
    int64_t now_ms = clock_wall_ms();
    uint32_t tables = 0;

    for (uint32_t entries = 0; entries < SWEEP_ENTRIES && tables < MAP_SLOTS * OORT_DATABASES;) {
        map_stripe *stripe = &store->stripes[at->slot / MAP_SLOTS_A_STRIPE];
        if (map_counted(&stripe->of[at->database].keys) == 0)
            at->tag = 0;
        else
            entries += sweep_table(store, at, now_ms);
        if (at->tag != 0)
            continue;
        tables++;
        if (++at->slot == MAP_SLOTS) {
            at->slot = 0;
            at->database = (uint8_t)((at->database + 1) % OORT_DATABASES);
        }
    }
}

void *map_sweep_main(void *argument)
{
    map_store *store = argument;
    sweep at = {0};

    (void)pthread_mutex_lock(&store->stop_mutex);
    while (!store->stop) {
        struct timespec until = clock_deadline(SWEEP_INTERVAL_MS);
        while (!store->stop && pthread_cond_timedwait(&store->stop_condition, &store->stop_mutex,
                                                      &until) != ETIMEDOUT)
            continue;
        if (store->stop)
            break;
        (void)pthread_mutex_unlock(&store->stop_mutex);
        sweep_some(store, &at);
        (void)pthread_mutex_lock(&store->stop_mutex);
    }
    (void)pthread_mutex_unlock(&store->stop_mutex);
    return NULL;
}
