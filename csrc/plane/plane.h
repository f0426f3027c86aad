/*
 * plane.h: inside the data plane: what its files share.
 *
 *   plane.c  open, close; a worker's rounds: events, mails, ticks
 *   commit.c     group commit: whose replies wait, for how long
 *   metrics.c    the workers' counters, summed
 *   turn.c      one connection's turn: read, parse, execute, send
 *   clients.c    the registry: adopt, kill, list, closed ids
 *   requests.c   cold commands on their way to the main loop and back
 *   fetch.c    threads that bring cold records into memory
 *
 * Threads: a connection and everything a worker holds belong to the thread that
 * drives the worker.  Others reach a worker through its mailbox only.  The plane's mutex
 * covers the registry, the request queue and the closed ids; it is taken when
 * a connection comes or goes and for cold commands, never for a hot one.  Order:
 * plane->mutex before a mailbox's mutex.
 */
#ifndef OORT_PLANE_H
#define OORT_PLANE_H

#include <pthread.h>

#include "base/metrics.h"
#include "commands/call.h"
#include "plane/conn.h"

#define WORKER_READ_BYTES (16u * 1024u) /* bytes read from a connection a round */
#define WORKER_BATCH 16u                /* requests parsed ahead */

struct park_list {
    struct conn *first, *last;
    uint64_t count;
};

/* PARK_SYNC: CONN_WAIT_SYNC; PARK_TICK: CONN_WAIT_TICK; PARK_LINGER: CONN_WAIT_LINGER. */
enum park { PARK_NONE = 0, PARK_SYNC, PARK_TICK, PARK_LINGER, PARK_COUNT };

/* Group commit, as commit.c sees it. */
struct commit {
    uint64_t ticket;         /* the highest still to be asked for; 0: none */
    uint64_t asked;          /* the highest asked of the sync thread */
    uint64_t expected;       /* how many waited when the last sync let some go */
    uint64_t gather_from_ms; /* since when others are waited for; 0: not yet */
    uint32_t rounds;         /* for how many the ticket has been put off */
    uint32_t skips;          /* how many more syncs are not gathered for */
    uint32_t misses;         /* how often in a row gathering was in vain */
    int wait_ms;             /* how long the next round may sleep; -1: until woken */
};

struct worker {
    oort_dataplane *plane;
    oort_store *store;
    oort_session *session;
    int epoll_fd, wake_fd, timer_fd;
    bool draining;     /* stopping: send, execute nothing */
    bool behind;       /* this round: writes wait */
    uint32_t timer_ms; /* what timer_fd is set to, 0: not set */
    uint64_t now_ms;   /* this round's wall clock */
    uint64_t idle_check_ms;
    oort_limits limits; /* this round's */

    struct conn *ready_first, *ready_last;
    struct park_list parked[PARK_COUNT];
    struct conn **conns; /* every connection of this worker */
    uint32_t conn_count, conn_capacity;

    struct commit commit;
    struct resp_parser parsers[WORKER_BATCH];
    int32_t command[WORKER_BATCH]; /* what command_resolve says of each */
    /* The first key of each, worked out once for the prefetch and the command. */
    oort_key keys[WORKER_BATCH];
    const oort_key *first_key[WORKER_BATCH];
    struct oort_output output;
    uint8_t *buffer; /* WORKER_READ_BYTES */

    _Atomic uint64_t rounds; /* begun */
    _Atomic int32_t thread;  /* who is in oort_worker_run */
    /* Metrics: written by the worker's thread only, with shown_add and shown_set. */
    struct plane_metrics stats;
    struct command_metrics *commands; /* by position in the table */
    uint8_t *countdown;               /* likewise: calls until one is timed */

    pthread_mutex_t mail_mutex;
    struct conn_mail *mail_first, *mail_last;
};

/* A reply from the main loop, with its bytes behind it. */
struct reply_mail {
    struct conn_mail mail;
    oort_reply reply;
    uint8_t data[];
};

/* One cold command: one heap block with arguments and bytes. */
struct request {
    oort_request request;
    struct request *next;
    oort_bytes argv[];
};

/* The registry's entry: lives until its connection is closed, its request answered, and
 * its end reported. */
struct client {
    uint64_t id;
    struct conn *conn;       /* NULL: closed */
    struct request *request; /* not answered yet */
    bool taken;              /* and the main loop has it */
    bool reported;           /* in the list of closed ids, or past it */
    struct client *bucket_next;
    struct client *previous, *next; /* live ones in order of age; next: closed list */
};

struct fetcher {
    oort_store *store;
    struct histogram *time; /* of a fetch */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct conn *first, *last;
    uint32_t threads; /* started */
    uint32_t sleeping;
    bool stop;
    pthread_t thread[2];
};

struct oort_dataplane {
    oort_store *store;
    struct worker *workers;
    uint32_t worker_count;
    _Atomic bool stopping;
    _Atomic uint64_t query_bytes, output_bytes, value_cap;
    _Atomic uint32_t idle_seconds;
    _Atomic uint32_t no_password;
    struct fetcher fetcher;
    /* Shared by all threads: few calls are timed, so there is little to contend for. */
    struct plane_histograms histograms;
    struct command_histograms *command_histograms; /* by position in the table */

    pthread_mutex_t mutex; /* everything below */
    uint64_t last_id;
    struct client **buckets;
    uint64_t bucket_count; /* a power of two */
    uint64_t client_count; /* in the buckets */
    struct client *live_first, *live_last;
    uint64_t live_count;
    struct client *closed_first, *closed_last;
    struct request *request_first, *request_last;
    int request_fd;
    bool request_signalled;
    struct plane_reading base; /* where the counters were at the last reset */
    struct command_reading *command_base;
};

/* plane.c */
void worker_post(struct worker *worker, struct conn_mail *mail);
void worker_ready(struct worker *worker, struct conn *conn);
void worker_park(struct worker *worker, struct conn *conn, enum park list);
void worker_unpark(struct worker *worker, struct conn *conn);
void worker_close(struct worker *worker, struct conn *conn);
/* Count the code of an error reply. */
void worker_count_error(struct worker *worker, const uint8_t *reply, uint64_t size);
/* Register or drop interest in EPOLLOUT. */
void worker_want_writable(struct worker *worker, struct conn *conn, bool want);

/* commit.c: send what the last sync covers; ask for the next, or put it off.  silent: the round brought
 * no events; may_wait: the next one may sleep. */
void worker_take_sync(struct worker *worker);
void worker_commit(struct worker *worker, bool silent, bool may_wait);

/* turn.c: one turn of a connection that has something to do. */
void worker_serve(struct worker *worker, struct conn *conn);

/* clients.c */
int32_t clients_open(oort_dataplane *plane, oort_error *error);
void clients_close(oort_dataplane *plane);
/* The following three: caller holds the mutex. */
struct client *clients_find(oort_dataplane *plane, uint64_t id);
void clients_report(oort_dataplane *plane, struct client *client);
void clients_release(oort_dataplane *plane, struct client *client);
void plane_signal(oort_dataplane *plane);
/* The connection is gone (takes the mutex). */
void clients_gone(oort_dataplane *plane, struct conn *conn);

/* requests.c: hand a cold command over; false: memory is short. */
bool requests_post(oort_dataplane *plane, struct conn *conn, const oort_bytes *argv, uint32_t argc,
                   int32_t command);

/* fetch.c: conn->cold is brought in, then conn->fetch_mail posted.  false: no thread. */
int32_t fetcher_open(struct fetcher *fetcher, oort_store *store, struct histogram *time,
                     oort_error *error);
bool fetcher_submit(struct fetcher *fetcher, struct conn *conn);
/* Returns when every thread has ended; jobs not begun are posted as failed. */
void fetcher_close(struct fetcher *fetcher);

#endif
