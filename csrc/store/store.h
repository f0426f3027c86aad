/*
 * store.h: the interface that every store implements, and the first members of every session.
 *
 * A store knows no protocol.  The public calls in oort.h check their arguments in store.c and call
 * the store through this table.  The persistent store is in this folder (valuestore.h), the
 * in-memory store in mapstore/.
 */
#ifndef OORT_STORE_H
#define OORT_STORE_H

#include "base/metrics.h"
#include "oort.h"

struct oort_store_ops {
    const char *name;
    int32_t (*close)(oort_store *store, oort_error *error);
    /* Fill in the gauges that the store measures instead of keeping them in its metrics. */
    void (*measure)(oort_store *store, struct store_reading *out);
    int32_t (*set_fsync)(oort_store *store, int32_t fsync);
    int32_t (*sync)(oort_store *store, oort_error *error);
    int32_t (*compact)(oort_store *store, uint32_t dead_percent, oort_error *error);
    int32_t (*next_event)(oort_store *store, oort_event *out);
    int (*event_fd)(oort_store *store);
    void (*request_sync)(oort_store *store, uint64_t ticket);
    int32_t (*sync_here)(oort_store *store, int eventfd);
    uint32_t (*gather_ms)(oort_store *store);
    uint64_t (*synced)(oort_store *store);
    int32_t (*watch_sync)(oort_store *store, int eventfd);
    void (*unwatch_sync)(oort_store *store, int eventfd);
    int32_t (*behind)(oort_store *store);
    int32_t (*fetch)(oort_store *store, oort_cold cold);
    void (*unpin)(oort_store *store, oort_value *value);

    oort_session *(*session_open)(oort_store *store, oort_error *error);
    void (*session_close)(oort_session *session);
    void (*prefetch)(oort_session *session, const oort_key *keys, uint32_t count);
    int32_t (*lock)(oort_session *session, const oort_key *keys, uint32_t count);
    void (*unlock)(oort_session *session);
    int32_t (*read)(oort_session *session, const oort_key *key, oort_value *out);
    int32_t (*look)(oort_session *session, const oort_key *key, oort_value *out);
    int32_t (*write)(oort_session *session, const oort_key *key, const oort_bytes *parts,
                     uint32_t part_count, int64_t expiry_ms);
    int32_t (*remove)(oort_session *session, const oort_key *key);
    int32_t (*set_expiry)(oort_session *session, const oort_key *key, int64_t expiry_ms);
    int32_t (*batch_begin)(oort_session *session, uint32_t count, uint64_t bytes);
    int32_t (*batch_commit)(oort_session *session);
    void (*batch_abort)(oort_session *session);
    void (*pin)(oort_session *session, oort_value *value);
    uint64_t (*ticket)(oort_session *session);
    int32_t (*flush)(oort_session *session, int32_t database);
    int32_t (*scan)(oort_session *session, uint8_t database, oort_scan *scan);
    int32_t (*random_key)(oort_session *session, uint8_t database, uint8_t *buffer, uint32_t *size);
};

/* The first member of every store. */
struct oort_store {
    const struct oort_store_ops *ops;
    struct store_metrics metrics;
    struct store_histograms histograms;
};

/* The first member of every session. */
struct oort_session {
    oort_store *store;
    int64_t now_us;   /* the clock, set once a batch of commands */
    oort_cold cold;   /* the record of the last OORT_COLD */
    oort_error error; /* the last failure */
};

#endif
