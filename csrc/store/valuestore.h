/*
 * valuestore.h: the parts of the persistent store, for its own files only.
 *
 *   session.c     sessions and their locks; the table of operations
 *   find.c        from a key to its index entry and record
 *   read.c        read a key, fetch a record, pin a value
 *   write.c       stamp, append, change a key
 *   batch.c       writes that take effect together
 *   open.c        open: trust, replay or rebuild; close
 *   recovery.c    replay and rebuild
 *   scan.c        walks over all keys: SCAN, RANDOMKEY, FLUSH
 *   commit.c      group commit: sync rounds, tickets, watchers
 *   expiry.c      the sweep of expired keys
 *   background.c  threads: maintenance, compaction; the disk watermark
 *   stats.c       sizes and states for the operator
 *   compaction.c  gives back the space of dead records
 *
 * Order of a change: log first, index second, always.  The index's mark moves on (vlog_applied)
 * while the key's stripe is still held.  After a kill the index therefore misses at most one change
 * a writer, and the key of that change has no later change.
 *
 * Locking: a stripe (16 cluster slots) covers the index entries of its keys and every change of
 * them. Stripes are taken in ascending order.  While a thread holds the stripe of a key, the
 * segment of the key's record stays mapped: compaction takes every stripe once between the last
 * change of the index and the unmapping.
 */
#ifndef OORT_VALUESTORE_H
#define OORT_VALUESTORE_H

#include "base/assert.h"
#include "base/error.h"
#include "index/index.h"
#include "log/toc.h"
#include "log/vlog.h"
#include "store/store.h"

#define STRIPES 1024u
#define STRIPE_SLOTS (INDEX_SLOTS / STRIPES)
#define SYNC_WATCHERS 64u
#define REPORTED_MAX 1024u
#define STORE_THREADS 3u
/* The checksum of a larger value is computed by the thread that fetches the value.  Larger than an
 * extent, so no two large values begin in the same extent. */
#define LARGE_VALUE (1024u * 1024u)

struct stripe {
    _Alignas(64) pthread_mutex_t mutex;
};

struct valuestore {
    oort_store base;
    struct vlog log;
    oort_index *index;
    struct checkpoint *checkpoint; /* in the index file */
    struct events events;
    struct stripe *stripes;
    int lock_fd;
    uint64_t value_cap;
    uint64_t free_bytes_low;
    uint64_t compaction_rate; /* bytes a second */
    uint32_t compaction_dead_percent;
    uint32_t tombstone_age_seconds;
    bool background;
    bool keys_counted; /* by this process: a trusted file may hold any number */

    _Atomic int32_t fsync;
    _Atomic bool read_only;
    _Atomic bool behind;
    _Atomic bool compacting;
    _Atomic uint64_t free_bytes;
    /* Locations of damage, by location, so that each is reported once. */
    _Atomic uint64_t reported[REPORTED_MAX];
    /* The sync round that covers the last removal or flush.  Until it ends, an absence is not
     * durable. */
    _Atomic uint64_t removal_round;

    /* Group commit: a run of commands waits for the first round that starts after the run. */
    pthread_mutex_t sync_round_mutex; /* one round at a time; before sync_mutex */
    _Atomic int64_t sync_ns;          /* smoothed duration of a round */
    pthread_mutex_t sync_mutex;
    pthread_cond_t sync_wake, sync_finished;
    _Atomic uint64_t sync_started, sync_done;
    _Atomic uint64_t sync_wanted;
    int watchers[SYNC_WATCHERS];
    uint32_t watcher_count;

    pthread_mutex_t thread_mutex;
    pthread_cond_t thread_wake;
    pthread_mutex_t compaction_mutex; /* one compaction at a time */
    _Atomic bool stopping;
    pthread_t threads[STORE_THREADS]; /* sync, maintenance, compaction */
    uint32_t thread_count;
    bool threads_running;
    oort_session *maintenance_session, *compaction_session;
};

struct batch_write {
    oort_key key;
    uint32_t first_part, part_count;
    uint64_t value_size;
    int64_t expiry_ms;
    uint64_t location;
    uint32_t order;
    bool superseded;
};

enum { LOCKED_SEVERAL = -1, LOCKED_NONE = -2 };

struct value_session {
    oort_session base;
    struct valuestore *store;
    struct log_writer writer;
    uint64_t locked[STRIPES / 64]; /* bitmap, if several stripes are held */
    int32_t locked_single;         /* a stripe, LOCKED_SEVERAL or LOCKED_NONE */
    bool wrote, read_unsynced;
    bool in_batch;
    uint32_t batch_count, batch_capacity;
    struct batch_write *batch;
    oort_bytes *batch_parts;
    uint32_t batch_part_count, batch_part_capacity;
};

/* The index entry of a key, and its record. */
struct found {
    index_cursor cursor;
    index_entry entry;
    struct segment *segment;
    uint64_t offset;
    const record_header *record; /* NULL: too damaged to know its size */
    bool damaged;
    bool dead; /* a tombstone, or a value that has expired */
};

enum find_mode { FIND_HOT, FIND_BLOCKING };

static inline struct valuestore *valuestore_of(oort_store *store)
{
    return (struct valuestore *)(void *)store;
}

static inline struct value_session *value_session_of(oort_session *session)
{
    return (struct value_session *)(void *)session;
}

static inline uint32_t stripe_of(uint64_t hash)
{
    return index_hash_slot(hash) / STRIPE_SLOTS;
}

static inline void valuestore_check_locked(const struct value_session *session, uint64_t hash)
{
    uint32_t stripe = stripe_of(hash);
    OORT_ASSERT(session->locked_single == (int32_t)stripe ||
                    (session->locked_single == LOCKED_SEVERAL &&
                     (session->locked[stripe / 64] >> stripe % 64 & 1) != 0),
                "the session holds the stripe of the key");
}

/* Takes a key out of the count of its database.  The caller holds the key's stripe. */
static inline void valuestore_uncount(struct valuestore *store, uint8_t database)
{
    int64_t before = atomic_fetch_sub(&store->checkpoint->keys[database], 1);
    OORT_ASSERT(before > 0 || !store->keys_counted, "the number of keys is not negative");
}

static inline bool expired(const record_header *record, int64_t now_ms)
{
    return record->expiry_ms != 0 && record->expiry_ms <= now_ms;
}

/* find.c */
/* Finds the entry of a key that has a value.  Skips dead entries without reading their records. */
int32_t valuestore_find(struct value_session *session, const oort_key *key, enum find_mode mode,
                        struct found *out);
/* Finds the entry of a key, dead or not.  A write replaces that entry. */
int32_t valuestore_find_any(struct value_session *session, const oort_key *key, enum find_mode mode,
                            struct found *out);
/* Adds (sign 1) or subtracts (sign -1) the record's live bytes: its own and, for an expiry record,
 * those of its value. */
void valuestore_account(struct valuestore *store, uint64_t location, int64_t sign);
/* For an expiry record: the record that has its value, or NULL if that record is gone. */
const record_header *valuestore_target(struct valuestore *store, const record_header *record,
                                       uint64_t *location);
void valuestore_damaged(struct valuestore *store, const struct segment *segment, uint64_t offset,
                        uint64_t size);
/* Prefetches the index lines of the first INDEX_PREFETCH_BATCH entries, so that their cache misses
 * overlap.  For walks over a table of contents. */
#define INDEX_PREFETCH_BATCH 48u
void valuestore_prefetch_entries(struct valuestore *store, const toc_entry *entries,
                                 uint64_t count);
void valuestore_prefetch(oort_session *session, const oort_key *keys, uint32_t count);

/* read.c */
/* Whether the record can be read and is undamaged: OORT_OK, OORT_COLD or OORT_ERR_DAMAGED.
 * with_value false: a large record is accepted by its header, which the caller has read already. */
int32_t valuestore_verify(struct value_session *session, struct segment *segment, uint64_t offset,
                          const record_header *record, bool with_value);
/* The value has expired.  Marks its entry as dead.  The record then serves as a tombstone: the dead
 * entry is the evidence on which compaction drops older values of the key. */
void valuestore_expire(struct value_session *session, const oort_key *key, struct found *at);
int32_t valuestore_read(oort_session *session, const oort_key *key, oort_value *out);
int32_t valuestore_look(oort_session *session, const oort_key *key, oort_value *out);
int32_t valuestore_fetch(oort_store *store, oort_cold cold);
void valuestore_pin(oort_session *session, oort_value *value);
void valuestore_unpin(oort_store *store, oort_value *value);

/* write.c */
uint64_t valuestore_stamp(struct value_session *session, bool deleting);
int32_t valuestore_append(struct value_session *session, const record_header *shape,
                          const uint8_t *key, const oort_bytes *parts, uint32_t part_count,
                          struct segment **segment, uint64_t *offset);
/* Writes a record and its checksum at a reserved position. */
void valuestore_write_record(struct segment *segment, uint64_t offset, const record_header *shape,
                             const uint8_t *key, const oort_bytes *parts, uint32_t part_count);
/* Points the index at a record that the log holds.  `at` is used if `exists`: the key has an
 * entry. */
int32_t valuestore_apply_set(struct value_session *session, const oort_key *key, struct found *at,
                             bool exists, struct segment *segment, uint64_t offset, uint64_t stamp);
int32_t valuestore_write(oort_session *session, const oort_key *key, const oort_bytes *parts,
                         uint32_t part_count, int64_t expiry_ms);
int32_t valuestore_remove(oort_session *session, const oort_key *key);
int32_t valuestore_set_expiry(oort_session *session, const oort_key *key, int64_t expiry_ms);

/* session.c */
oort_session *valuestore_session(struct valuestore *store, oort_error *error);
void valuestore_lock_stripe(struct valuestore *store, uint32_t stripe);
void valuestore_unlock_stripe(struct valuestore *store, uint32_t stripe);
extern const struct oort_store_ops valuestore_ops;

/* stats.c */
void valuestore_measure(oort_store *store, struct store_reading *out);
int32_t valuestore_next_event(oort_store *store, oort_event *out);
int valuestore_event_fd(oort_store *store);
int32_t valuestore_behind(oort_store *store);

/* batch.c */
int32_t valuestore_batch_begin(oort_session *session, uint32_t count, uint64_t bytes);
int32_t valuestore_batch_commit(oort_session *session);
void valuestore_batch_abort(oort_session *session);
int32_t valuestore_stash(struct value_session *session, const oort_key *key,
                         const oort_bytes *parts, uint32_t part_count, uint64_t value_size,
                         int64_t expiry_ms);

/* recovery.c */
/* alive: the index is in the state that a killed process left.  Otherwise the index is empty. */
int32_t valuestore_recover(struct valuestore *store, bool alive, oort_open_progress *progress,
                           oort_error *error);

/* open.c */
int32_t valuestore_close(oort_store *store, oort_error *error);

/* scan.c */
int32_t valuestore_scan(oort_session *session, uint8_t database, oort_scan *scan);
int32_t valuestore_random_key(oort_session *session, uint8_t database, uint8_t *buffer,
                              uint32_t *size);
int32_t valuestore_flush(oort_session *session, int32_t database);
/* Erases the entries that a flush has made invisible. */
void valuestore_sweep_flushed(struct valuestore *store);

/* commit.c */
int32_t valuestore_sync(oort_store *store, oort_error *error);
uint64_t valuestore_ticket(oort_session *session);
/* Call after the record of a removal was appended and before the removal becomes visible. */
void valuestore_note_removal(struct valuestore *store);
/* The reply will report an absence, which may not be durable yet. */
void valuestore_saw_absence(struct value_session *session);
void valuestore_request_sync(oort_store *store, uint64_t ticket);
int32_t valuestore_sync_here(oort_store *store, int eventfd);
uint32_t valuestore_gather_ms(oort_store *store);
uint64_t valuestore_synced(oort_store *store);
int32_t valuestore_watch_sync(oort_store *store, int eventfd);
void valuestore_unwatch_sync(oort_store *store, int eventfd);
/* A round has ended, or there will be no more rounds.  except: the caller's own watcher, which is
 * not told; -1: none. */
void valuestore_tell_watchers(struct valuestore *store, int except);
int32_t valuestore_set_fsync(oort_store *store, int32_t fsync);
/* The main function of the sync thread.  context: the store. */
void *valuestore_sync_main(void *context);

/* expiry.c */
/* Sweeps the segments whose next expiry has passed, within a limited time.  *resume: the number of
 * the segment at which to begin, 0 at first.  The next call continues from there. */
void valuestore_sweep_expired(struct valuestore *store, uint32_t *resume);

/* background.c */
int32_t valuestore_start(struct valuestore *store, oort_error *error);
void valuestore_stop(struct valuestore *store);
void valuestore_check_disk(struct valuestore *store);
void valuestore_wake_maintenance(struct valuestore *store);

/* compaction.c */
int32_t valuestore_compact(oort_store *store, uint32_t dead_percent, oort_error *error);
/* Compacts the segment that is most worth it.  1: compacted one, 0: there was none, negative: an
 * error. */
int32_t valuestore_compact_one(struct valuestore *store, uint32_t dead_percent, bool paced,
                               oort_error *error);

#endif
