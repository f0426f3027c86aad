/*
 * mapstore.h: the parts of the in-memory store, for mapstore.c (keys, sessions, batches) and
 * mapwalk.c (operations on whole databases).  mapstore.c explains the design.
 */
#ifndef OORT_MAPSTORE_H
#define OORT_MAPSTORE_H

#include "base/assert.h"
#include "base/error.h"
#include "mapstore/maptable.h"
#include "store/store.h"

#include <pthread.h>
#include <stdlib.h>

enum { MAP_SLOTS = 16384, MAP_STRIPES = 1024, MAP_SLOTS_A_STRIPE = MAP_SLOTS / MAP_STRIPES };

/* Changed under the stripe's lock, read without it. */
typedef struct map_counters {
    _Atomic uint64_t keys;
    _Atomic uint64_t entry_bytes;
    _Atomic uint64_t table_bytes;
} map_counters;

typedef struct map_stripe {
    _Alignas(64) pthread_mutex_t mutex;
    uint64_t last_stamp;
    map_counters of[OORT_DATABASES];
} map_stripe;

typedef struct map_store {
    oort_store base;
    uint64_t value_cap;
    int event_fd; /* never readable, because this store posts no events */
    map_table *_Atomic tables[OORT_DATABASES];
    bool sweeping; /* the thread below exists */
    pthread_t sweeper;
    pthread_mutex_t stop_mutex;
    pthread_cond_t stop_condition;
    bool stop;
    map_stripe stripes[MAP_STRIPES];
} map_store;

/* What abort restores: old in the place of entry, or the old expiry and stamp of entry. */
typedef struct map_undo {
    map_entry *old;
    map_entry *entry;
    int64_t expiry_ms;
    uint64_t stamp;
    bool expiry_only;
    bool expired; /* old had expired; commit counts it */
} map_undo;

typedef struct map_session {
    oort_session base;
    uint64_t locked[MAP_STRIPES / 64]; /* one bit for every held stripe */
    bool holding;
    bool in_batch;
    map_entry *retired; /* entries unlinked under the current locks */
    map_undo *undos;
    uint32_t undo_count;
    uint32_t undo_capacity;
    uint64_t batch_bytes; /* announced but not yet written */
    uint64_t random;
} map_session;

static inline map_store *map_store_of(map_session *session)
{
    return (map_store *)session->base.store;
}

static inline void map_count(_Atomic uint64_t *counter, uint64_t change)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + change, memory_order_relaxed);
}

static inline uint64_t map_counted(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline uint64_t map_entry_bytes(const map_entry *entry)
{
    return offsetof(map_entry, bytes) + (uint64_t)entry->value_size + entry->key_size;
}

static inline void map_release(map_entry *entry)
{
    uint32_t before = atomic_fetch_sub_explicit(&entry->references, 1, memory_order_acq_rel);
    OORT_ASSERT(before != 0, "an entry is released as often as it was referenced");
    if (before == 1)
        free(entry);
}

static inline bool map_expired(const map_entry *entry, int64_t now_ms)
{
    return entry->expiry_ms != 0 && entry->expiry_ms <= now_ms;
}

static inline map_stripe *map_stripe_of(map_store *store, uint64_t hash)
{
    return &store->stripes[map_slot(hash) / MAP_SLOTS_A_STRIPE];
}

/* The table of a slot in a database.  NULL: the database never had a key, or (make) there is no
 * memory for a table. */
map_table *map_table_of(map_store *store, uint8_t database, uint32_t slot, bool make);
/* Replaces old with entry; either may be NULL.  The caller holds the stripe and has called
 * maptable_prepare. */
void map_exchange(map_store *store, map_table *table, map_entry *old, map_entry *entry);
/* As map_exchange, for a session: abort can undo the change, and old stays readable until
 * unlock. */
void map_change(map_session *session, map_table *table, map_entry *old, map_entry *entry);
int32_t map_check_idle(map_session *session);
int32_t map_lock(oort_session *base, const oort_key *keys, uint32_t key_count);
void map_unlock(oort_session *base);

void map_free_tables(map_table *tables);
int32_t map_flush(oort_session *base, int32_t database);
int32_t map_scan(oort_session *base, uint8_t database, oort_scan *scan);
int32_t map_random_key(oort_session *base, uint8_t database, uint8_t *buffer, uint32_t *size);
/* The main function of the thread that removes expired entries.  Its argument is the store. */
void *map_sweep_main(void *store);

#endif
