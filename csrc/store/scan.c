/*
 * scan.c: walks over all keys: SCAN, RANDOMKEY, FLUSH.
 *
 * A position is 14 bits of slot and 24 bits of tag.  All keys of a position are delivered together,
 * so a cursor is just the next position.  It means the same after a restart, after a compaction and
 * on any replica.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SCAN_ENTRIES 1024u
#define DEAD_AS_ONE 32u /* so many dead entries, whose records are not read, cost as one key */
#define POSITION_END (UINT64_C(1) << INDEX_POSITION_BITS)

/* The record of an entry, if it is a key of this database that a client can see.  OORT_OK,
 * OORT_MISSING, or OORT_COLD (session->base.cold tells which record). */
static int32_t visible(struct value_session *session, uint8_t database, index_entry entry,
                       const record_header **record)
{
    struct valuestore *store = session->store;
    if (index_database(entry) != database || stamp_is_dead(index_stamp(entry)) ||
        index_stamp(entry) < atomic_load(&store->checkpoint->flush_stamp[database]))
        return OORT_MISSING;
    struct segment *segment = vlog_segment(&store->log, index_location(entry));
    uint64_t offset = location_offset(index_location(entry));
    uint64_t tail = segment != NULL ? atomic_load(&segment->tail) : 0;
    if (tail < sizeof(record_header) || offset > tail - sizeof(record_header))
        return OORT_MISSING;
    uint32_t tick = atomic_load_explicit(&store->log.tick, memory_order_relaxed);
    uint64_t needed = sizeof(record_header);
    if (segment_resident(segment, offset, needed, tick)) {
        if (record_extent(segment->map, offset, tail) == 0) {
            valuestore_damaged(store, segment, offset, sizeof(record_header));
            return OORT_MISSING;
        }
        *record = segment_record(segment, offset);
        needed += (*record)->key_size;
        if (segment_resident(segment, offset, needed, tick))
            return expired(*record, session->base.now_us / 1000) ? OORT_MISSING : OORT_OK;
    }
    session->base.cold = (oort_cold){.location = index_location(entry), .size = needed};
    return OORT_COLD;
}

/* Appends the visible keys of these entries to the buffer: all of them or none. */
static int32_t deliver(struct value_session *session, uint8_t database, const index_entry *entries,
                       uint32_t count, oort_scan *scan)
{
    uint64_t used = scan->used, keys = 0, needed = 0;
    for (uint32_t i = 0; i < count; i++) {
        const record_header *record = NULL;
        int32_t result = visible(session, database, entries[i], &record);
        if (result == OORT_COLD)
            return OORT_COLD;
        if (result != OORT_OK)
            continue;
        uint64_t size = sizeof record->key_size + record->key_size;
        needed += size;
        if (used + size <= scan->capacity) {
            memcpy(scan->buffer + used, &record->key_size, sizeof record->key_size);
            memcpy(scan->buffer + used + sizeof record->key_size, record_key(record),
                   record->key_size);
            used += size;
            keys++;
        } else {
            used = scan->capacity + 1; /* does not fit: from here on only sum the sizes */
        }
    }
    if (used > scan->capacity) {
        scan->capacity_needed = needed;
        return OORT_ERR_TOO_BIG;
    }
    scan->used = used;
    scan->count += keys;
    return OORT_OK;
}

int32_t valuestore_scan(oort_session *base, uint8_t database, oort_scan *scan)
{
    struct value_session *session = value_session_of(base);
    struct valuestore *store = session->store;
    uint32_t capacity = SCAN_ENTRIES, most = UINT32_MAX;
    uint64_t visited = 0, all = 0, dead = 0;
    if (scan->position >= POSITION_END) {
        scan->position = scan->used = scan->count = 0; /* an invalid cursor: the walk is over */
        return OORT_OK;
    }
    index_entry *entries = malloc(capacity * sizeof *entries);
    if (entries == NULL)
        return OORT_ERR_NOMEM;
    scan->used = 0;
    scan->count = 0;
    int32_t result = OORT_OK;
    while (result == OORT_OK) {
        uint32_t slot = (uint32_t)(scan->position >> INDEX_TAG_BITS);
        uint32_t tag = (uint32_t)scan->position & ((1u << INDEX_TAG_BITS) - 1);
        uint32_t count = 0, next_tag = 0;
        uint64_t want = scan->want > visited ? scan->want - visited : 1;
        want = want < most ? want : most;
        valuestore_lock_stripe(store, slot / STRIPE_SLOTS);
        result = index_scan_slot(store->index, slot, tag, entries,
                                 want < capacity ? (uint32_t)want : capacity, &count, &next_tag);
        if (result == OORT_ERR_TOO_BIG && want < capacity)
            /* One position has more entries than were wanted.  It is delivered as a whole. */
            result = index_scan_slot(store->index, slot, tag, entries, capacity, &count, &next_tag);
        if (result == OORT_OK)
            result = deliver(session, database, entries, count, scan);
        else if (result == OORT_ERR_TOO_BIG)
            result = OORT_MISSING; /* the array is too small for one position: see below */
        valuestore_unlock_stripe(store, slot / STRIPE_SLOTS);
        if (result == OORT_COLD) {
            result = oort_fetch(base->store, base->cold);
            continue;
        }
        if (result == OORT_MISSING) {
            index_entry *larger = realloc(entries, 2 * (size_t)capacity * sizeof *entries);
            result = larger == NULL ? OORT_ERR_NOMEM : OORT_OK;
            if (larger != NULL) {
                entries = larger;
                capacity *= 2;
            }
            continue;
        }
        if (result == OORT_ERR_TOO_BIG) {
            /* If the buffer holds keys already, they are the answer.  Otherwise retry with fewer
             * entries, down to one position. */
            if (scan->used == 0 && count > 1 && most > 1) {
                most = count / 2;
                result = OORT_OK;
                continue;
            }
            if (scan->used != 0)
                result = OORT_OK;
            break;
        }
        if (result != OORT_OK)
            break;
        all += count;
        for (uint32_t i = 0; i < count; i++)
            dead += stamp_is_dead(index_stamp(entries[i]));
        visited = all - dead + dead / DEAD_AS_ONE;
        if (next_tag != INDEX_SLOT_END)
            scan->position = (uint64_t)slot << INDEX_TAG_BITS | next_tag;
        else if (slot + 1 < INDEX_SLOTS)
            scan->position = (uint64_t)(slot + 1) << INDEX_TAG_BITS;
        else
            scan->position = 0;
        if (scan->position == 0 || visited >= scan->want)
            break;
    }
    free(entries);
    return result;
}

struct gathered {
    uint8_t database;
    index_entry *entries;
    uint32_t count, capacity;
    bool short_of_memory;
};

static int gather(void *context, uint32_t slot, index_entry entry)
{
    struct gathered *gathered = context;
    (void)slot;
    if (index_database(entry) != gathered->database || stamp_is_dead(index_stamp(entry)))
        return INDEX_KEEP;
    if (gathered->count == gathered->capacity) {
        uint32_t capacity = gathered->capacity ? gathered->capacity * 2 : 256;
        index_entry *larger = realloc(gathered->entries, capacity * sizeof *larger);
        if (larger == NULL) {
            gathered->short_of_memory = true;
            return INDEX_STOP;
        }
        gathered->entries = larger;
        gathered->capacity = capacity;
    }
    gathered->entries[gathered->count++] = entry;
    return INDEX_KEEP;
}

/* One visible key of a slot, searched from a random live entry on. */
static int32_t pick(struct value_session *session, uint32_t slot, uint32_t draw,
                    struct gathered *gathered, uint8_t *buffer, uint32_t *size)
{
    struct valuestore *store = session->store;
    for (;;) {
        int32_t result = OORT_MISSING;
        gathered->count = 0;
        valuestore_lock_stripe(store, slot / STRIPE_SLOTS);
        index_visit_slot(store->index, slot, gather, gathered);
        for (uint32_t i = 0; i < gathered->count && result == OORT_MISSING; i++) {
            const record_header *record = NULL;
            result = visible(session, gathered->database,
                             gathered->entries[(draw + (uint64_t)i) % gathered->count], &record);
            if (result == OORT_OK) {
                memcpy(buffer, record_key(record), record->key_size);
                *size = record->key_size;
            }
        }
        valuestore_unlock_stripe(store, slot / STRIPE_SLOTS);
        if (gathered->short_of_memory)
            return OORT_ERR_NOMEM;
        if (result != OORT_COLD)
            return result;
        result = oort_fetch(session->base.store, session->base.cold);
        if (result != OORT_OK)
            return result;
    }
}

int32_t valuestore_random_key(oort_session *base, uint8_t database, uint8_t *buffer, uint32_t *size)
{
    struct value_session *session = value_session_of(base);
    struct gathered gathered = {.database = database};
    uint32_t draw[2];
    int32_t result = OORT_MISSING;
    if (atomic_load(&session->store->checkpoint->keys[database]) <= 0)
        return OORT_MISSING;
    if (getrandom(draw, sizeof draw, 0) != (ssize_t)sizeof draw)
        return oort_fail(&base->error, OORT_ERR_IO, errno, "cannot get random numbers: %s",
                         strerror(errno));
    for (uint32_t i = 0; i < INDEX_SLOTS && result == OORT_MISSING; i++)
        result = pick(session, (draw[0] + i) % INDEX_SLOTS, draw[1], &gathered, buffer, size);
    free(gathered.entries);
    return result;
}

/* ---- flush ------------------------------------------------------------------------ */

struct sweep {
    struct valuestore *store;
    int64_t erased[OORT_DATABASES];
};

static int sweep_entry(void *context, uint32_t slot, index_entry entry)
{
    struct sweep *sweep = context;
    struct valuestore *store = sweep->store;
    uint8_t database = index_database(entry);
    (void)slot;
    if (index_stamp(entry) >= atomic_load(&store->checkpoint->flush_stamp[database]))
        return INDEX_KEEP;
    if (stamp_is_dead(index_stamp(entry)))
        return INDEX_ERASE;
    valuestore_account(store, index_location(entry), -1);
    valuestore_uncount(store, database);
    return INDEX_ERASE;
}

void valuestore_sweep_flushed(struct valuestore *store)
{
    struct sweep sweep = {.store = store};
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++) {
        valuestore_lock_stripe(store, slot / STRIPE_SLOTS);
        index_visit_slot(store->index, slot, sweep_entry, &sweep);
        valuestore_unlock_stripe(store, slot / STRIPE_SLOTS);
    }
}

int32_t valuestore_flush(oort_session *base, int32_t database)
{
    struct value_session *session = value_session_of(base);
    struct valuestore *store = session->store;
    struct checkpoint *checkpoint = store->checkpoint;
    struct segment *segment;
    uint64_t offset;
    bool all = true;
    for (uint32_t stripe = 0; stripe < STRIPES; stripe++)
        valuestore_lock_stripe(store, stripe);
    for (int other = 0; database >= 0 && other < OORT_DATABASES; other++)
        all = all && (other == database || atomic_load(&checkpoint->keys[other]) == 0);
    /* If no other database has keys, all of them are flushed.  The index is cleared, so afterwards
     * only the flush explains that the deleted keys of the other databases are dead. */
    record_header shape = {.kind = RECORD_FLUSH,
                           .database = all ? RECORD_ALL_DATABASES : (uint8_t)database,
                           .stamp = valuestore_stamp(session, true)};
    int32_t result = valuestore_append(session, &shape, (const uint8_t *)"", NULL, 0, &segment,
                                       &offset);
    if (result == OORT_OK) {
        for (int other = 0; other < OORT_DATABASES; other++)
            if (all || other == database)
                atomic_store(&checkpoint->flush_stamp[other], shape.stamp);
        if (all) {
            result = index_clear(store->index, &base->error);
            for (int other = 0; other < OORT_DATABASES; other++)
                atomic_store(&checkpoint->keys[other], 0);
            for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++)
                atomic_store(&checkpoint->live_bytes[number], 0);
        }
        valuestore_note_removal(store);
        vlog_applied(&session->writer, segment);
    }
    for (uint32_t stripe = STRIPES; stripe-- > 0;)
        valuestore_unlock_stripe(store, stripe);
    if (result == OORT_OK && !all)
        valuestore_sweep_flushed(store);
    /* The thread of a flush may block, so it waits for the sync here. */
    if (result == OORT_OK && atomic_load(&store->fsync) == OORT_FSYNC_ALWAYS)
        result = valuestore_sync(&store->base, &base->error);
    return result;
}
