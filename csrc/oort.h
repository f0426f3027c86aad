/*
 * oort.h: the public interface of the oort data path.
 *
 * The data path is a plain C library.  It parses RESP, executes the native commands, keeps values in a
 * persistent store, and moves bytes through epoll.  It does not use Python.h and can be built,
 * fuzzed and sanitised alone (make -C csrc test).
 *
 * Python sees the part between the two "cffi" marks.  oort/native_build.py hands that part to cffi
 * unchanged, so it holds only plain declarations: no macros except integer constants, no inline
 * functions.
 *
 * Contract
 *
 *  - Sizes are bytes.  Names state the unit of times (_us, _ms, _seconds).  Times count from the
 *    Unix epoch unless they are durations.
 *  - A function that can fail returns an oort_status; negative values are errors.  A function that
 *    takes an oort_error pointer fills it on failure with one line: the place, the cause and the
 *    cure.
 *  - A function is thread safe only if its comment says so.  Any number of threads may use an
 *    oort_store, each with its own oort_session.
 *  - There is no global state.  Two stores in one process are independent.
 *  - A caller that breaks the contract may end the process (base/assert.h).
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
#define OORT_ERROR_CODES 7       /* first words of error replies that are counted apart: ERR, ... */

enum oort_status {
    OORT_OK = 0,
    OORT_MISSING = 1,      /* no such key, or the key has expired */
    OORT_COLD = 2,         /* the record is not in memory: call oort_fetch, then try again */
    OORT_ERR_NOMEM = -1,   /* an allocation failed */
    OORT_ERR_IO = -2,      /* the kernel reported an I/O error */
    OORT_ERR_FULL = -3,    /* below the watermark of free disk space, or no addresses left */
    OORT_ERR_TOO_BIG = -4, /* a key, value or batch is over its limit */
    OORT_ERR_LOCKED = -5,  /* another process has the data directory open */
    OORT_ERR_FORMAT = -6,  /* written by a newer version, or not a file of oort */
    OORT_ERR_DAMAGED = -7, /* a checksum does not match */
    OORT_ERR_FAILED = -8,  /* an earlier I/O error was final: no more writes are accepted */
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

/* The Redis Cluster slot of a key: CRC16/XMODEM of the key or its {hash tag}, mod 16384. */
uint32_t oort_key_slot(const uint8_t *key, size_t size);
/* The ring hash: the slot in the top 14 bits, then the low 50 bits of XXH3 (the seed is the
 * database). */
uint64_t oort_ring_hash(const uint8_t *key, size_t size, uint8_t database);
/* CRC32C (Castagnoli), computed by hardware where possible.  Seed 0 starts a checksum. */
uint32_t oort_crc32c(uint32_t seed, const void *data, size_t size);

/* ---- metrics ------------------------------------------------------------- */

/* Counters, gauges and histograms, described from base/metrics.def.  The values of an owner's counters
 * and gauges are one array of 64-bit numbers.  A description says where in it (place) and how many
 * (values). */
enum oort_metric_owner {
    OORT_METRICS_STORE = 0,
    OORT_METRICS_PLANE = 1,
    OORT_METRICS_COMMAND = 2, /* of the data plane, for each command: see oort_command_stats */
    OORT_METRICS_PROCESS = 3  /* held by Python */
};
enum oort_metric_kind { OORT_COUNTER = 0, OORT_GAUGE = 1, OORT_HISTOGRAM = 2 };
/* A unit a|b|c names the states 0, 1 and 2.  The label says what tells the values apart: "database",
 * "code", "command", or "" for a single value.  A field of INFO is "" when the metric is not a field by
 * itself; <label> in a field stands for a value of the label. */
typedef struct oort_metric {
    const char *name; /* without the "oort_" in front */
    const char *unit, *label;
    const char *section, *field; /* of INFO */
    const char *help;            /* one sentence */
    int32_t kind;                /* an oort_metric_kind */
    int32_t resets;              /* 1: CONFIG RESETSTAT starts it again */
    uint32_t place;              /* of a histogram: its number among the owner's histograms */
    uint32_t values;             /* how many places; of a histogram: 0 */
} oort_metric;
/* NULL: the owner has no such metric. */
const oort_metric *oort_metric_at(int32_t owner, uint32_t number);
/* The size of the array of an owner; 0: C does not hold it. */
uint32_t oort_metric_places(int32_t owner);

#define OORT_HISTOGRAM_BUCKETS 122

typedef struct oort_histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t buckets[OORT_HISTOGRAM_BUCKETS]; /* bounds rise; see oort_histogram_bound */
} oort_histogram;
/* The lowest duration, in ns, that is too long for a bucket; UINT64_MAX for the last. */
uint64_t oort_histogram_bound(uint32_t bucket);
/* The duration in ns that so many percent do not exceed, at most a quarter too high; 0 when the
 * histogram is empty. */
uint64_t oort_histogram_percentile(const oort_histogram *histogram, double percent);

/* ---- the store ---------------------------------------------------------- */

enum oort_fsync { OORT_FSYNC_NO = 0, OORT_FSYNC_EVERYSEC = 1, OORT_FSYNC_ALWAYS = 2 };

/* The progress of an open.  The opening thread writes it; other threads may read it meanwhile. */
enum oort_open_stage {
    OORT_OPEN_FILES = 0,
    OORT_OPEN_REPLAY = 1,
    OORT_OPEN_REBUILD = 2,
    OORT_OPEN_COUNT = 3
};
typedef struct oort_open_progress {
    uint64_t stage;    /* an oort_open_stage */
    uint64_t segments; /* to read in all; OORT_OPEN_COUNT: parts of the index */
    uint64_t done;     /* of these segments */
    uint64_t records;  /* read so far */
} oort_open_progress;

typedef struct oort_store_config {
    const char *directory;         /* must exist; locked while open */
    const char *runtime_directory; /* on tmpfs, for the fast restart; NULL: none */
    uint64_t segment_bytes;  /* 64 KiB to 128 MiB; 0: default (64 MiB, less on a small disk) */
    uint64_t value_cap;      /* 0: OORT_VALUE_CAP */
    uint64_t free_bytes_low; /* below it the store is read-only; 0: default */
    uint64_t compaction_bytes_per_second; /* 0: default */
    uint32_t compaction_dead_percent;     /* compact segments above it; 0: default (50) */
    uint32_t tombstone_age_seconds;       /* tombstones are kept at least so long */
    int32_t fsync;                        /* an oort_fsync */
    int32_t background;                   /* 0: no threads (tests); 1: sync, compaction, expiry */
    oort_open_progress *progress;         /* NULL: not wanted; else in use until the open returns */
    /* 0: none.  Otherwise a descriptor of the directory that was held open since the store was last
     * open, as evidence that the file system stayed mounted. */
    int32_t held_directory;
} oort_store_config;

typedef struct oort_store oort_store;
typedef struct oort_session oort_session;

/* A key with its hash, which is computed once.  Filled by oort_key_init. */
typedef struct oort_key {
    const uint8_t *data;
    uint64_t hash;
    uint32_t size;
    uint8_t database;
} oort_key;

/* The result of oort_read.  data is valid until oort_unlock or, if the value is pinned, until
 * oort_unpin. */
typedef struct oort_value {
    const uint8_t *data;
    uint64_t size;
    int64_t expiry_ms; /* 0: never */
    uint64_t stamp;
    uint64_t stored_bytes; /* bytes of the record in the store, index included */
    void *origin;          /* the store's own: the memory that a pin would keep */
    void *pin;             /* the memory that the pin keeps; NULL: not pinned */
} oort_value;

/* The bytes that a call needed when it returned OORT_COLD. */
typedef struct oort_cold {
    uint64_t location;
    uint64_t size;
} oort_cold;

/* Whether the directory can be a runtime directory.  1: it is on a tmpfs, so its content does not
 * survive the machine's boot. */
int32_t oort_is_tmpfs(const char *directory);
/* Open the persistent store (append-only log and mapped index), or the in-memory store. */
oort_store *oort_valuestore_open(const oort_store_config *config, oort_error *error);
oort_store *oort_mapstore_open(const oort_store_config *config, oort_error *error);
/* Closes the store.  Every session must be closed and every value unpinned first.  The store is
 * gone whatever the result; an error means that the last sync failed. */
int32_t oort_store_close(oort_store *store, oort_error *error);

/* Reads the store's counters and gauges: out has oort_metric_places(OORT_METRICS_STORE) places.  This
 * call and the following two are thread safe. */
void oort_store_get_metrics(oort_store *store, uint64_t *out);
/* place: that of a histogram of OORT_METRICS_STORE. */
int32_t oort_store_get_histogram(oort_store *store, uint32_t place, oort_histogram *out);
/* CONFIG RESETSTAT: counters that reset start again at 0, and histograms are emptied. */
void oort_store_reset_metrics(oort_store *store);
/* Changes the policy while the store is in use (CONFIG SET).  Thread safe. */
int32_t oort_store_set_fsync(oort_store *store, int32_t fsync);
/* Makes everything acknowledged durable (SAVE).  Thread safe; blocks. */
int32_t oort_store_sync(oort_store *store, oort_error *error);
/* Deletes every key of a database, or of all databases (database = -1). */
int32_t oort_store_flush(oort_session *session, int32_t database);
/* Compacts all segments above dead_percent; blocks.  For tests and operators. */
int32_t oort_store_compact(oort_store *store, uint32_t dead_percent, oort_error *error);

/* Messages for the operator.  oort_store_next_event: 1: out is filled, 0: there is no message.
 * level is a syslog priority.  The descriptor is readable while there are messages. */
enum oort_event_kind {
    OORT_EVENT_OTHER = 0,
    OORT_EVENT_DAMAGE = 1,  /* bytes differ from the bytes that were written */
    OORT_EVENT_FULL = 2,    /* writes are refused for lack of disk space */
    OORT_EVENT_ROOM = 3,    /* writes are accepted again */
    OORT_EVENT_FAILED = 4,  /* an I/O error was final: nothing more is acknowledged */
    OORT_EVENT_RECOVERY = 5 /* the last open repaired something */
};
typedef struct oort_event {
    int32_t level;
    int32_t kind;     /* an oort_event_kind */
    uint64_t segment; /* sequence number of the message's segment, or 0 */
    char text[500];
} oort_event;
int32_t oort_store_next_event(oort_store *store, oort_event *out);
int oort_store_event_fd(oort_store *store);

/* A session is one thread's handle on a store: its clock, its locks, and the segment that it
 * appends to. */
oort_session *oort_session_open(oort_store *store, oort_error *error);
void oort_session_close(oort_session *session);
/* Sets the clock of stamps and expiry, once a batch of commands.  0: reads the current time. */
void oort_session_set_clock(oort_session *session, int64_t now_us);
int64_t oort_session_now_ms(const oort_session *session);
/* The text of the session's last error. */
const char *oort_session_error(const oort_session *session);

void oort_key_init(oort_key *key, const uint8_t *data, size_t size, uint8_t database);
/* Prefetches the memory that reading or writing these keys will touch.  Useful from two keys on,
 * because their cache misses then overlap. */
void oort_prefetch(oort_session *session, const oort_key *keys, uint32_t count);

/* Locks the stripes of the keys, always in the same order, so there is no deadlock.  All calls
 * below, up to oort_unlock, must be for locked keys.  A session can hold only one lock at a
 * time. */
int32_t oort_lock(oort_session *session, const oort_key *keys, uint32_t count);
void oort_unlock(oort_session *session);

/* OORT_OK, OORT_MISSING, OORT_COLD (see oort_session_cold), or an error.  An expired key is
 * missing. */
int32_t oort_read(oort_session *session, const oort_key *key, oort_value *out);
/* As oort_read, but without the value's bytes: data must not be read, and a large value stays on
 * disk and is not checked.  For commands that need only the other fields. */
int32_t oort_look(oort_session *session, const oort_key *key, oort_value *out);
/* Stores the concatenation of the parts, which may lie inside a value that was just read.
 * expiry_ms 0: never expires; in the past: the key is removed.  OORT_OK, OORT_COLD or an error. */
int32_t oort_write(oort_session *session, const oort_key *key, const oort_bytes *parts,
                   uint32_t part_count, int64_t expiry_ms);
/* OORT_OK: the key was removed; OORT_MISSING, OORT_COLD, or an error. */
int32_t oort_remove(oort_session *session, const oort_key *key);
/* expiry_ms 0: never expires.  OORT_OK, OORT_MISSING, OORT_COLD or an error. */
int32_t oort_set_expiry(oort_session *session, const oort_key *key, int64_t expiry_ms);

/* A batch: the writes between begin and commit become visible, and survive a crash, together or not
 * at all. count: number of writes; bytes: the sum of all key and value sizes.  After an error
 * before the commit (OORT_COLD too) the caller must call oort_batch_abort.  If a key comes twice,
 * the last write counts. Keys and parts must not move until the commit. */
int32_t oort_batch_begin(oort_session *session, uint32_t count, uint64_t bytes);
int32_t oort_batch_commit(oort_session *session);
void oort_batch_abort(oort_session *session);

/* Keeps the bytes of a value in place after oort_unlock, for instance until they are sent. */
void oort_pin(oort_session *session, oort_value *value);
void oort_unpin(oort_store *store, oort_value *value);

/* After OORT_COLD: oort_session_cold names the missing bytes.  oort_fetch reads them into memory;
 * call it on a thread that may block. */
oort_cold oort_session_cold(const oort_session *session);
int32_t oort_fetch(oort_store *store, oort_cold cold);

/* Group commit.  Call oort_session_ticket after a run of commands.  0: the replies may be sent at
 * once. Otherwise they must wait until oort_store_synced reaches the ticket, because the policy is
 * "always" and something that the run wrote or read is not durable yet.  The call also starts a new
 * run.  A ticket triggers no sync by itself: call oort_store_request_sync once for all tickets of a
 * round, so that one sync covers them. */
uint64_t oort_session_ticket(oort_session *session);
void oort_store_request_sync(oort_store *store, uint64_t ticket); /* thread safe */
/* Syncs in the calling thread if that is faster than waking another thread: the last rounds took
 * less than a millisecond and no other thread is syncing.  1: done; every ticket given out before
 * has been reached (or the store failed), and all watchers except eventfd were told.  0: call
 * oort_store_request_sync. */
int32_t oort_store_sync_here(oort_store *store, int eventfd);
/* How long it pays to wait for others that can share the next sync, in milliseconds; 0: not at
 * all. */
uint32_t oort_store_gather_ms(oort_store *store);
uint64_t oort_store_synced(oort_store *store); /* thread safe; UINT64_MAX: the store failed */
/* Adds an eventfd, which is signalled after every sync round.  At most 64 watchers. */
int32_t oort_store_watch_sync(oort_store *store, int eventfd);
void oort_store_unwatch_sync(oort_store *store, int eventfd); /* before the eventfd is closed */
/* 1: the device cannot keep up, so stop reading requests that write until the result is 0.  Thread
 * safe. */
int32_t oort_store_behind(oort_store *store);

/* SCAN: appends keys of a database to buffer, each as a uint32_t size and that many bytes, from a
 * position in ring order on.  All keys of a position are delivered together, and at least one
 * position is delivered.  OORT_ERR_TOO_BIG: the buffer must have at least capacity_needed bytes.
 * May block on disk. */
typedef struct oort_scan {
    uint64_t position; /* in: 0 starts; out: the next position (< 2^48), 0: finished */
    uint64_t want;     /* in: visit at least so many keys, or many times as many deleted ones */
    uint8_t *buffer;
    uint64_t capacity;
    uint64_t used;            /* out */
    uint64_t count;           /* out: number of keys in buffer */
    uint64_t capacity_needed; /* out, with OORT_ERR_TOO_BIG */
} oort_scan;
int32_t oort_store_scan(oort_session *session, uint8_t database, oort_scan *scan);
/* Copies a random key into buffer (OORT_KEY_CAP bytes), and its size into *size. */
int32_t oort_store_random_key(oort_session *session, uint8_t database, uint8_t *buffer,
                              uint32_t *size);

/* ---- commands ----------------------------------------------------------- */

/* The command table, made from commands/table/: the one source for dispatch, COMMAND, COMMAND DOCS,
 * HELP, ACL categories and docs/commands.md. */
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
    OORT_CMD_NATIVE = 65536,    /* executed in C; all others in Python */
    OORT_CMD_CONTAINER = 131072 /* has subcommands */
};
typedef struct oort_command_info {
    const char *name;    /* lower case; a subcommand as "client|id" */
    const char *details; /* JSON: the facts that documentation, COMMAND and HELP show */
    int32_t arity;       /* as in COMMAND: the name counts, negative means at least */
    uint32_t flags;
    int32_t container; /* position of the command that this is a subcommand of, -1: of none */
    int32_t first_key, last_key, key_step; /* in argv; first 0: no keys; last < 0: from the end */
} oort_command_info;
uint32_t oort_command_count(void);
const oort_command_info *oort_command_at(uint32_t position);
/* By full name, in any case; -1: unknown. */
int32_t oort_command_find(const uint8_t *name, size_t size);
/* The error that a client is told for a status below 0: code and text, as RESP has them, in out.
 * detail: the session's words for it (oort_session_error). */
void oort_status_error(int32_t status, const char *detail, char *out, uint64_t size);

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

/* A command that Python executes.  argv stays valid until the reply. */
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

/* The counters of OORT_METRICS_COMMAND.  A command's time is the sum of its histogram. */
typedef struct oort_command_stats {
    uint64_t calls, failed, rejected;
} oort_command_stats;

/* The clock and the transport must outlive the plane. */
oort_dataplane *oort_dataplane_open(oort_store *store, const oort_plane_config *config,
                                    oort_error *error);
/* Closes every connection.  No worker may be running, and every message must have been released. */
void oort_dataplane_close(oort_dataplane *plane);
/* Thread safe.  A worker follows at the beginning of its next round.  OORT_OK, or OORT_ERR_NOMEM:
 * nothing has changed. */
int32_t oort_dataplane_configure(oort_dataplane *plane, const oort_plane_settings *settings);
/* Reads the counters and gauges: out has oort_metric_places(OORT_METRICS_PLANE) places.  This call and
 * the following five are thread safe. */
void oort_dataplane_get_metrics(oort_dataplane *plane, uint64_t *out);
/* Per command, out has oort_command_count() places. */
void oort_dataplane_get_command_stats(oort_dataplane *plane, oort_command_stats *out);
/* place: that of a histogram of OORT_METRICS_PLANE. */
int32_t oort_dataplane_get_histogram(oort_dataplane *plane, uint32_t place, oort_histogram *out);
/* place: that of a histogram of OORT_METRICS_COMMAND; command: position in the table. */
int32_t oort_dataplane_get_command_histogram(oort_dataplane *plane, uint32_t place,
                                             uint32_t command, oort_histogram *out);
/* Records how long Python took to execute a command.  command: position in the table. */
int32_t oort_dataplane_add_time(oort_dataplane *plane, uint32_t command, uint64_t nanoseconds);
/* CONFIG RESETSTAT: counters that reset start again at 0, and histograms are emptied. */
void oort_dataplane_reset_metrics(oort_dataplane *plane);
/* The code at a position of the values of a metric with the label "code"; NULL beyond them. */
const char *oort_error_code(uint32_t position);

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

/* Requests for Python.  The descriptor is readable while a request or the id of a closed connection
 * is queued. */
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

/* cffi: end */

#endif
