/*
 * oort.h: the public face of the oort data path.
 *
 * A plain C library: it parses RESP, executes the hot commands, keeps values in
 * a persistent store, and moves bytes through epoll.  It contains no Python.h
 * and can be built, fuzzed and sanitised alone (make -C csrc test).
 *
 * The part between the two "cffi" marks is what Python sees: setup.py hands it
 * to cffi as it stands, so it holds plain declarations only (no macros but
 * integer constants, no inline functions).
 *
 * Contract
 *  - Sizes are bytes, times are stated in each name (_us, _ms, _seconds) and
 *    count from the Unix epoch unless they are durations.
 *  - A function that can fail returns an oort_status; negative is an error.
 *    Where an oort_error pointer is taken, it is filled on failure with the
 *    place, the cause and the cure, in one line.
 *  - Nothing is thread safe unless its comment says so.  An oort_store may be
 *    used by any number of threads, each with an oort_session of its own.
 *  - No global state: two stores in one process do not know of each other.
 */
#ifndef OORT_H
#define OORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

#define OORT_DATABASES 16
#define OORT_KEY_CAP 65536       /* longest key, bytes */
#define OORT_VALUE_CAP 536870912 /* longest value, bytes (512 MiB) */

enum oort_status {
    OORT_OK = 0,
    OORT_MISSING = 1,      /* no such key (or it has expired) */
    OORT_COLD = 2,         /* the record is not in memory: oort_fetch, then again */
    OORT_ERR_NOMEM = -1,   /* an allocation failed */
    OORT_ERR_IO = -2,      /* the kernel reported an I/O error */
    OORT_ERR_FULL = -3,    /* below the free-disk watermark, or out of addresses */
    OORT_ERR_TOO_BIG = -4, /* key, value or batch over its cap */
    OORT_ERR_LOCKED = -5,  /* another process has the data directory open */
    OORT_ERR_FORMAT = -6,  /* written by a newer version, or not ours */
    OORT_ERR_DAMAGED = -7, /* a checksum does not match */
    OORT_ERR_FAILED = -8,  /* an earlier I/O error was final: no more writes */
    OORT_ERR_ARGUMENT = -9 /* the caller broke the contract */
};

typedef struct oort_error {
    int32_t code;      /* an oort_status */
    int32_t sys_errno; /* errno of the failed call, or 0 */
    char text[500];    /* one line, NUL terminated */
} oort_error;

typedef struct oort_bytes {
    const uint8_t *data;
    uint64_t size;
} oort_bytes;

/* ---- hashing ------------------------------------------------------------ */

/* Redis Cluster slot of a key: CRC16/XMODEM of the key or its {hash tag}, mod 16384. */
uint32_t oort_key_slot(const uint8_t *key, size_t size);
/* The ring hash: slot in the top 14 bits, low 50 bits of XXH3 (seed = database). */
uint64_t oort_ring_hash(const uint8_t *key, size_t size, uint8_t database);
/* CRC32C (Castagnoli), hardware where there is some; seed 0 starts a sum. */
uint32_t oort_crc32c(uint32_t seed, const void *data, size_t size);

/* ---- the store ---------------------------------------------------------- */

enum oort_fsync { OORT_FSYNC_NO = 0, OORT_FSYNC_EVERYSEC = 1, OORT_FSYNC_ALWAYS = 2 };

/* How far an open has come.  Written by the thread that opens; any other may look meanwhile. */
enum oort_open_stage {
    OORT_OPEN_FILES = 0,
    OORT_OPEN_REPLAY = 1,
    OORT_OPEN_REBUILD = 2,
    OORT_OPEN_COUNT = 3
};
typedef struct oort_open_progress {
    uint64_t stage;    /* an oort_open_stage */
    uint64_t segments; /* to be looked through in all; while counting: parts of the index */
    uint64_t done;     /* of those */
    uint64_t records;  /* seen so far */
} oort_open_progress;

typedef struct oort_store_config {
    const char *directory;         /* must exist; locked while open */
    const char *runtime_directory; /* on tmpfs, for the fast restart; NULL: none */
    uint64_t segment_bytes;  /* 0: default (64 MiB, less on a small disk); 64 KiB .. 128 MiB */
    uint64_t value_cap;      /* 0: OORT_VALUE_CAP */
    uint64_t free_bytes_low; /* read-only below this much free disk; 0: default */
    uint64_t compaction_bytes_per_second; /* 0: default */
    uint32_t compaction_dead_percent;     /* compact a segment above it; 0: default (50) */
    uint32_t tombstone_age_seconds;       /* no tombstone is dropped before it */
    int32_t fsync;                        /* an oort_fsync */
    int32_t background;           /* 0: no threads at all (tests); 1: sync, compaction, expiry */
    oort_open_progress *progress; /* NULL: nobody looks; else used until the open returns */
    int32_t held_directory;       /* 0: none; a descriptor of the directory that somebody has held
                                      open since the store was last opened: its file system has
                                      not been away */
} oort_store_config;

typedef struct oort_store oort_store;
typedef struct oort_session oort_session;

/* A key with its identity worked out once: fill it with oort_key_init. */
typedef struct oort_key {
    const uint8_t *data;
    uint64_t hash;
    uint32_t size;
    uint8_t database;
} oort_key;

/* What oort_read found.  data stays valid until oort_unlock, or, once pinned,
 * until oort_unpin. */
typedef struct oort_value {
    const uint8_t *data;
    uint64_t size;
    int64_t expiry_ms; /* 0: never */
    uint64_t stamp;
    uint64_t stored_bytes; /* what the record takes in the store, index included */
    void *origin;          /* the store's own: what a pin would keep */
    void *pin;             /* what it keeps, NULL while unpinned */
} oort_value;

/* Where the bytes are that made a call answer OORT_COLD. */
typedef struct oort_cold {
    uint64_t location;
    uint64_t size;
} oort_cold;

typedef struct oort_store_stats {
    uint64_t keys[OORT_DATABASES];
    uint64_t expired_keys; /* removed because their time had come */
    uint64_t segments;
    uint64_t log_bytes;       /* in all segments */
    uint64_t live_bytes;      /* of those, reachable from the index */
    uint64_t index_bytes;     /* file size */
    uint64_t compactions;     /* segments compacted */
    uint64_t compacted_bytes; /* bytes those gave back */
    uint64_t syncs;           /* fdatasync rounds */
    uint64_t unsynced_bytes;  /* acknowledged, not yet on the device */
    uint64_t damaged_records; /* found since open; never silently skipped */
    uint64_t damaged_bytes;
    uint64_t cut_bytes;         /* unsynced tail dropped by the last recovery */
    uint64_t recovered_records; /* replayed or rebuilt by the last open */
    uint64_t free_bytes;        /* of the file system */
    uint64_t last_sync_ms;      /* when the last successful sync ended */
    int32_t recovery;           /* 0 new or clean, 1 replayed, 2 rebuilt */
    int32_t read_only;          /* 1: below the free-disk watermark */
    int32_t failed;             /* an oort_status: the sticky error, or 0 */
    int32_t compacting;         /* 1: a compaction is running */
} oort_store_stats;

/* May a runtime directory be here?  1: it is on tmpfs, so that what it holds dies with the machine. */
int32_t oort_is_tmpfs(const char *directory);
/* Open the persistent store (append-only log + mmap index), or the in-memory one. */
oort_store *oort_valuestore_open(const oort_store_config *config, oort_error *error);
oort_store *oort_mapstore_open(const oort_store_config *config, oort_error *error);
/* Close: every session must be closed first.  The store is gone whatever is
 * returned; an error means that the last sync failed. */
int32_t oort_store_close(oort_store *store, oort_error *error);

void oort_store_get_stats(oort_store *store, oort_store_stats *out);
/* Change the policy while running (CONFIG SET).  Thread safe. */
int32_t oort_store_set_fsync(oort_store *store, int32_t fsync);
/* Make everything acknowledged durable now (SAVE).  Thread safe; blocks. */
int32_t oort_store_sync(oort_store *store, oort_error *error);
/* Delete every key of a database, or of all of them (database = -1). */
int32_t oort_store_flush(oort_session *session, int32_t database);
/* Compact now whatever is above dead_percent; blocks (tests, operators). */
int32_t oort_store_compact(oort_store *store, uint32_t dead_percent, oort_error *error);

/* Messages for the operator: 1 and the message, or 0 when there is none.
 * level is a syslog priority.  The descriptor is readable while one waits. */
enum oort_event_kind {
    OORT_EVENT_OTHER = 0,
    OORT_EVENT_DAMAGE = 1,  /* bytes that are not what was written */
    OORT_EVENT_FULL = 2,    /* writes are refused for want of disk space */
    OORT_EVENT_ROOM = 3,    /* and accepted again */
    OORT_EVENT_FAILED = 4,  /* an I/O error was final: nothing more is acknowledged */
    OORT_EVENT_RECOVERY = 5 /* what the last open had to make good */
};
typedef struct oort_event {
    int32_t level;
    int32_t kind;     /* an oort_event_kind */
    uint64_t segment; /* sequence number of the segment it is about, 0: of none */
    char text[500];
} oort_event;
int32_t oort_store_next_event(oort_store *store, oort_event *out);
int oort_store_event_fd(oort_store *store);

/* A session is one thread's handle on a store: its clock, the locks it holds,
 * the segment it appends to. */
oort_session *oort_session_open(oort_store *store, oort_error *error);
void oort_session_close(oort_session *session);
/* Set the clock that stamps and expiry use, once a batch; 0: read it now. */
void oort_session_set_clock(oort_session *session, int64_t now_us);
int64_t oort_session_now_ms(const oort_session *session);
/* The last error of this session, in words. */
const char *oort_session_error(const oort_session *session);

void oort_key_init(oort_key *key, const uint8_t *data, size_t size, uint8_t database);
/* Ask the processor for the memory that reading or writing these keys will touch: worth it
 * from two keys on, since their cache misses then overlap. */
void oort_prefetch(oort_session *session, const oort_key *keys, uint32_t count);

/* Lock the keys' stripes (in one order: no deadlock).  Every call below up to
 * oort_unlock must be for keys that are locked.  One lock at a time a session. */
int32_t oort_lock(oort_session *session, const oort_key *keys, uint32_t count);
void oort_unlock(oort_session *session);

/* OORT_OK, OORT_MISSING, OORT_COLD (then oort_session_cold says where), or an error.
 * An expired key is missing. */
int32_t oort_read(oort_session *session, const oort_key *key, oort_value *out);
/* The same but for the value's bytes: data may not be touched, and a large value stays on disk and
 * unchecked. For all that a command can answer from the rest. */
int32_t oort_look(oort_session *session, const oort_key *key, oort_value *out);
/* Store the concatenation of parts (they may lie inside a value just read). expiry_ms 0: never;
 * in the past: the key is removed instead.  OORT_OK, OORT_COLD or an error. */
int32_t oort_write(oort_session *session, const oort_key *key, const oort_bytes *parts,
                   uint32_t part_count, int64_t expiry_ms);
/* OORT_OK: it was there and is gone; OORT_MISSING; OORT_COLD; or an error. */
int32_t oort_remove(oort_session *session, const oort_key *key);
/* 0: never expires.  OORT_OK, OORT_MISSING, OORT_COLD or an error. */
int32_t oort_set_expiry(oort_session *session, const oort_key *key, int64_t expiry_ms);

/* All or nothing: writes between begin and commit become visible, and survive a
 * crash, together.  bytes is the sum of key and value sizes.  Any error before commit
 * (OORT_COLD too) must be answered by oort_batch_abort. A key may come twice; the last wins.
 * Keys and parts must stay where they are until commit. */
int32_t oort_batch_begin(oort_session *session, uint32_t count, uint64_t bytes);
int32_t oort_batch_commit(oort_session *session);
void oort_batch_abort(oort_session *session);

/* Keep a value's bytes in place beyond oort_unlock, e.g. to write them to a socket. */
void oort_pin(oort_session *session, oort_value *value);
void oort_unpin(oort_store *store, oort_value *value);

/* After OORT_COLD: what to bring in; then, on a thread that may block, bring it in. */
oort_cold oort_session_cold(const oort_session *session);
int32_t oort_fetch(oort_store *store, oort_cold cold);

/* Group commit.  After a run of commands: 0 when their replies may be sent at once,
 * else the ticket that oort_store_synced must reach first (what they wrote or read is
 * not yet durable and the policy is "always"). Asking resets the run.  Nothing is synced for it until
 * oort_store_request_sync: once for all tickets of a round, so that one sync covers them. */
uint64_t oort_session_ticket(oort_session *session);
void oort_store_request_sync(oort_store *store, uint64_t ticket); /* thread safe */
/* Sync in the calling thread instead, where that is sooner than waking another: when the device has been
 * quick of late (under a millisecond a round) and nobody else is at it.  1: done, every ticket given
 * before has been reached (or the store failed), and all watchers but eventfd are told; 0: ask for it. */
int32_t oort_store_sync_here(oort_store *store, int eventfd);
/* How long waiting for others to share the next sync is worth it, milliseconds; 0: not at all. */
uint32_t oort_store_gather_ms(oort_store *store);
uint64_t
oort_store_synced(oort_store *store); /* thread safe; UINT64_MAX: never again, the store failed */
/* An eventfd that the sync thread signals after every round (at most 64 watchers). */
int32_t oort_store_watch_sync(oort_store *store, int eventfd);
void oort_store_unwatch_sync(oort_store *store, int eventfd); /* before it is closed */
/* 1: the device cannot keep up, stop reading requests that write until it is 0 again. Thread safe. */
int32_t oort_store_behind(oort_store *store);

/* SCAN: append keys of a database to buffer, each as a uint32_t size and that many bytes,
 * from a position in ring order.  All keys of one position come together: at least
 * one position is delivered; *capacity_needed says how large a buffer must be when it is
 * too small (OORT_ERR_TOO_BIG).  Returns OORT_OK; *next is 0 at the end.  May block on disk. */
typedef struct oort_scan {
    uint64_t position; /* in: 0 starts; out: next position, 0: finished (< 2^48) */
    uint64_t want;     /* in: how many entries to visit at least */
    uint8_t *buffer;
    uint64_t capacity;
    uint64_t used;            /* out */
    uint64_t count;           /* out: keys in buffer */
    uint64_t capacity_needed; /* out, with OORT_ERR_TOO_BIG */
} oort_scan;
int32_t oort_store_scan(oort_session *session, uint8_t database, oort_scan *scan);
/* A random key, copied into buffer (OORT_KEY_CAP bytes): its size in *size. */
int32_t oort_store_random_key(oort_session *session, uint8_t database, uint8_t *buffer,
                              uint32_t *size);

/* ---- commands ----------------------------------------------------------- */

/* The command table, compiled from commands.def: the one source for dispatch,
 * COMMAND, COMMAND DOCS, ACL categories and docs/commands.md. */
enum oort_command_flag {
    OORT_CMD_WRITE = 1,
    OORT_CMD_READONLY = 2,
    OORT_CMD_DENYOOM = 4,
    OORT_CMD_ADMIN = 8,
    OORT_CMD_NOSCRIPT = 16,
    OORT_CMD_LOADING = 32,
    OORT_CMD_STALE = 64,
    OORT_CMD_FAST = 128,
    OORT_CMD_NO_AUTH = 256,
    OORT_CMD_ALLOW_BUSY = 512,
    OORT_CMD_BLOCKING = 1024,
    OORT_CMD_NO_MULTI = 2048,
    OORT_CMD_NO_ASYNC_LOADING = 4096,
    OORT_CMD_HOT = 65536 /* executed in C */
};
typedef struct oort_command_info {
    const char *name; /* lower case; a subcommand as "client|id" */
    const char *summary;
    const char *since; /* the Redis version it appeared in */
    const char *group; /* "string", "generic", "connection", "server" */
    const char *complexity;
    const char *categories; /* ACL categories, space separated, each with its @ */
    const char *arguments;  /* the syntax, as redis.io writes it */
    int32_t arity;          /* as in COMMAND: negative means at least */
    uint32_t flags;
    int32_t first_key, last_key, key_step;
} oort_command_info;
uint32_t oort_command_count(void);
const oort_command_info *oort_command_at(uint32_t position);
int32_t oort_command_find(const uint8_t *name, size_t size); /* any case; -1: unknown */

/* ---- the request parser alone ------------------------------------------- */

/* RESP requests from bytes that come in pieces, as the data plane parses them. */
typedef struct oort_parser oort_parser;
oort_parser *oort_parser_open(void); /* NULL: memory is short */
void oort_parser_close(oort_parser *parser);
int32_t oort_parser_feed(oort_parser *parser, const uint8_t *data, uint64_t size);
/* OORT_OK: a request, good until the next call (argc 0: an empty one); OORT_MISSING: more bytes are
 * needed; OORT_ERR_ARGUMENT: a protocol error, oort_parser_error says which. */
int32_t oort_parser_next(oort_parser *parser, uint64_t bulk_cap, bool authenticated,
                         const oort_bytes **argv, uint32_t *argc);
const char *oort_parser_error(const oort_parser *parser);

/* ---- the data plane ----------------------------------------------------- */

typedef struct oort_dataplane oort_dataplane;

/* What can change while the plane runs.  oort_dataplane_configure replaces all of it at once. */
typedef struct oort_plane_settings {
    uint64_t query_bytes;  /* unparsed bytes that a connection may hold */
    uint64_t output_bytes; /* unsent bytes, of replies and messages, that drop a connection */
    uint64_t value_cap;    /* proto-max-bulk-len */
    uint32_t idle_seconds; /* a connection that sends nothing for so long is closed; 0: never */
    uint32_t no_password;  /* 1: no password is set, so every connection may run commands */
} oort_plane_settings;

/* Where the plane gets its time and how bytes move; tests use others than the system's.
 * See base/clock.h and plane/transport.h. */
typedef struct oort_clock oort_clock;
typedef struct oort_transport oort_transport;

typedef struct oort_plane_config {
    uint32_t workers;                /* 1 to 64; the caller chooses who drives each */
    const oort_clock *clock;         /* NULL: the system's clock */
    const oort_transport *transport; /* NULL: plain sockets */
    oort_plane_settings settings;    /* the first ones */
} oort_plane_config;

enum oort_connection_flag {
    OORT_CONN_AUTHENTICATED = 1, /* may run commands */
    OORT_CONN_UNIX = 2,
    OORT_CONN_NO_EVICT = 4,
    OORT_CONN_NO_TOUCH = 8
};

/* One cold command, waiting for Python.  argv stays valid until its reply. */
typedef struct oort_request {
    uint64_t connection; /* id, never used twice */
    const oort_bytes *argv;
    uint32_t argc;
    int32_t command; /* position in the table, -1: unknown */
    uint32_t flags;  /* oort_connection_flag */
    uint8_t database;
    uint8_t protocol; /* 2 or 3 */
} oort_request;

/* What a reply changes in its connection; fields count where their mask bit is set. */
enum oort_change {
    OORT_CHANGE_DATABASE = 1,
    OORT_CHANGE_PROTOCOL = 2,
    OORT_CHANGE_FLAGS = 4,
    OORT_CHANGE_CLOSE = 8, /* close once the reply is sent */
    OORT_CHANGE_WAIT = 16  /* wait before the reply is sent: see oort_connection_wake */
};
typedef struct oort_reply {
    uint64_t connection;
    const uint8_t *data; /* RESP, copied */
    uint64_t size;
    uint64_t wait;    /* number of the wait: not 0, and never twice for one connection */
    int64_t wait_ms;  /* how long the connection waits at most; negative: without end */
    uint32_t changes; /* oort_change bits */
    uint32_t flags;   /* the new oort_connection_flag set */
    uint8_t database;
    uint8_t protocol;
} oort_reply;

typedef struct oort_connection_info {
    uint64_t id;
    int32_t fd;
    uint32_t worker;
    uint32_t flags;
    uint8_t database;
    uint8_t protocol;
    uint64_t created_ms, active_ms; /* wall clock */
    uint64_t query_bytes, query_free, output_bytes;
    uint64_t commands; /* executed */
    uint64_t bytes_in, bytes_out;
    int32_t last_command; /* position in the table, -1: none */
} oort_connection_info;

typedef struct oort_command_stats {
    uint64_t calls, failed, rejected;
    uint64_t nanoseconds; /* of hot ones, from one call in 256 */
} oort_command_stats;

#define OORT_ERROR_CODES 7 /* of error replies: ERR, NOAUTH, ... */

typedef struct oort_dataplane_stats {
    uint64_t connections; /* now */
    uint64_t commands;    /* executed, hot and cold */
    uint64_t bytes_in, bytes_out;
    uint64_t hits, misses; /* of key lookups by read commands */
    uint64_t protocol_errors;
    uint64_t dropped_slow; /* closed for unsent output */
    uint64_t dropped_idle;
    uint64_t dropped_query; /* closed for too large a query buffer */
    uint64_t cold_reads;    /* commands that waited for the disk */
    uint64_t waiting_sync;  /* connections whose replies wait for a sync, now */
} oort_dataplane_stats;

/* The clock and the transport must outlive the plane. */
oort_dataplane *oort_dataplane_open(oort_store *store, const oort_plane_config *config,
                                    oort_error *error);
/* Closes every connection.  No worker may be running, and every message must have been released. */
void oort_dataplane_close(oort_dataplane *plane);
/* Thread safe.  A worker follows at the beginning of its next round.  OORT_OK, or OORT_ERR_NOMEM:
 * nothing has changed. */
int32_t oort_dataplane_configure(oort_dataplane *plane, const oort_plane_settings *settings);
void oort_dataplane_get_stats(oort_dataplane *plane, oort_dataplane_stats *out);
/* Per command, out has oort_command_count() places. */
void oort_dataplane_get_command_stats(oort_dataplane *plane, oort_command_stats *out);
/* How often an error reply began with a code, out has OORT_ERROR_CODES places. */
void oort_dataplane_get_error_stats(oort_dataplane *plane, uint64_t *out);
const char *oort_error_code(uint32_t position);
void oort_dataplane_reset_stats(oort_dataplane *plane);

/* Run a worker until oort_workers_stop.  Stays in C, where the GIL is released. */
int32_t oort_worker_run(oort_dataplane *plane, uint32_t worker, oort_error *error);
/* One round, for a loop that watches oort_worker_fd: returns at once when nothing is ready
 * (timeout_ms 0). */
int32_t oort_worker_poll(oort_dataplane *plane, uint32_t worker, int32_t timeout_ms,
                         oort_error *error);
int oort_worker_fd(oort_dataplane *plane, uint32_t worker);
/* Make a worker that runs begin a round, however idle it is; a worker in the middle of a round
 * begins another one after it.  Thread safe. */
void oort_worker_nudge(oort_dataplane *plane, uint32_t worker);
/* Rounds begun since the start.  Thread safe. */
uint64_t oort_worker_rounds(oort_dataplane *plane, uint32_t worker);
/* The kernel's id of the thread in oort_worker_run; 0: no thread has been.  Thread safe. */
int32_t oort_worker_thread(oort_dataplane *plane, uint32_t worker);
/* Every worker sends what it can and returns from oort_worker_run.  A connection that waits for an
 * event is not answered any more.  Thread safe. */
void oort_workers_stop(oort_dataplane *plane);

/* Hand an accepted socket over.  The data plane owns the descriptor from then on, whatever is
 * returned.  Thread safe.  Returns the connection's id; 0: memory is short. */
uint64_t oort_connection_adopt(oort_dataplane *plane, uint32_t worker, int fd, uint32_t flags);
/* Thread safe.  1: the connection will be closed; 0: there is no such connection. */
int32_t oort_connection_kill(oort_dataplane *plane, uint64_t connection);
/* Fill up to capacity entries.  Returns how many connections there are.  Thread safe. */
uint64_t oort_connection_list(oort_dataplane *plane, oort_connection_info *out, uint64_t capacity);

/* Ids of the connections closed since the last call, so that Python forgets what it knows of them.
 */
uint64_t oort_connection_closed(oort_dataplane *plane, uint64_t *out, uint64_t capacity);

/* Cold commands.  The descriptor is readable while a request is queued or the id of a closed
 * connection is. */
int oort_request_fd(oort_dataplane *plane);
/* 1: out is filled; 0: no request is queued.  One thread only. */
int32_t oort_request_next(oort_dataplane *plane, oort_request *out);
/* Answer a request, or make its connection wait (OORT_CHANGE_WAIT).  OORT_OK; OORT_MISSING: the
 * connection has gone meanwhile; OORT_ERR_ARGUMENT: the reply is not valid or nothing is to be
 * answered; OORT_ERR_NOMEM: the connection will be closed.  Thread safe. */
int32_t oort_request_reply(oort_dataplane *plane, const oort_reply *reply);

/* ---- waits -------------------------------------------------------------- */

/* A connection can wait for an event before its command is answered: a blocking command until
 * there is an element, DEBUG SLEEP until a time has passed.  The command's reply has
 * OORT_CHANGE_WAIT, a number for the wait, and its longest duration.
 *  - While a connection waits, none of its requests is executed and messages reach its client.
 *    idle_seconds does not count.
 *  - The wait ends exactly once.  oort_connection_wake ends it with the reply given there.  If the
 *    time passes, or the client closes its sending side, the reply that started the wait is sent.
 *    If the connection is closed or killed, or the plane is closed, no reply is sent.
 *  - Time is monotonic.
 * A hundred thousand connections may wait at once. */

/* End the wait reply->wait of reply->connection with this reply, which must not wait again.
 * OORT_OK: this call has ended the wait, and the reply will be sent unless the connection breaks.
 * So a caller that hands an element to a waiting connection may give up the element.
 * OORT_MISSING: the wait has ended already, or the connection has gone.  OORT_ERR_ARGUMENT: the
 * reply is not valid.  OORT_ERR_NOMEM: the wait has not ended.  Thread safe. */
int32_t oort_connection_wake(oort_dataplane *plane, const oort_reply *reply);

/* ---- messages ----------------------------------------------------------- */

/* A message is sent to connections that did not ask for it: what a channel's subscribers, monitors
 * and tracking clients get.  Its bytes are encoded once for each protocol, and every connection
 * that it is sent to shares them.
 *  - The caller chooses the message by the protocol of each connection.
 *  - Messages posted by one thread reach a connection in the order in which they were posted.
 *  - A message is appended behind the replies produced before the worker took it from its
 *    mailbox.  It never splits a reply.  Replies that wait for a sync hold the messages behind
 *    them back.
 *  - A message that comes while a command is with Python is sent after that command's reply.  So a
 *    command that registers a subscription may register first and answer then: the confirmation
 *    comes before the first message.  A message that a command sends to its own connection comes
 *    behind the command's reply, too.  EXEC's replies are one reply.
 *  - Unsent messages count against the settings' output_bytes, each with its full size for every
 *    connection.  A client that does not read is dropped (dropped_slow) and delays no other
 *    client.
 *  - A connection that is about to close gets no more messages. */
typedef struct oort_message oort_message;

/* A copy of bytes, which are whole RESP values.  The caller has the first reference.  NULL: memory
 * is short.  Thread safe. */
oort_message *oort_message_new(oort_dataplane *plane, const uint8_t *data, uint64_t size);
/* Give the caller's reference back; the connections have references of their own.  Thread safe. */
void oort_message_release(oort_message *message);
/* Send a message to connections, given by id; an id of a connection that has gone is skipped.
 * Returns how many connections there are; OORT_ERR_NOMEM: nothing has been sent.  Thread safe. */
int64_t oort_connection_send(oort_dataplane *plane, const uint64_t *connections, uint64_t count,
                             oort_message *message);
/* Bytes of the messages that are still referred to; a message counts once.  Thread safe. */
uint64_t oort_dataplane_message_bytes(oort_dataplane *plane);

/* cffi: end */

#endif
