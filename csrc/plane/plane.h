/*
 * plane.h: what the files of the data plane share.
 *
 *   plane.c       open and close; a worker's rounds
 *   worker.c      a worker's lists, mailbox and timers
 *   turn.c        one connection's turn: read, parse, execute, send
 *   conn.c        a connection's buffers
 *   transport.c   plain sockets
 *   commit.c      group commit: whose replies wait, and for how long
 *   clients.c     the registry: adopt, kill, list, closed ids
 *   requests.c    requests for Python on their way to the main loop and back
 *   event_wait.c  connections that wait for an event
 *   messages.c    messages that answer no request
 *   fetch.c       threads that bring cold records into memory
 *   settings.c    the settings that can change while the plane runs
 *   timers.c      deadlines of connections
 *   metrics.c     the workers' counters, summed
 *
 * Threads: a connection and everything a worker holds belong to the thread that drives the worker.
 * Other threads reach a worker through its mailbox only.  The plane's mutex covers the registry,
 * the request queue, the closed ids and the retired settings.  It is taken when a connection comes
 * or goes, for requests, waits and messages, never for a native command.  Order: plane->mutex
 * before a mailbox's mutex.
 *
 * Time: deadlines and durations are monotonic, from the plane's clock.  Wall time is only for the
 * session's clock (stamps and expiry) and for what is shown of a connection.
 */
#ifndef OORT_PLANE_H
#define OORT_PLANE_H

#include <pthread.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "commands/call.h"
#include "plane/conn.h"
#include "plane/timers.h"

#define PLANE_WORKERS_MAX 64u

struct shared_settings;

#define WORKER_READ_BYTES (16u * 1024u) /* bytes read from a connection a round */
#define WORKER_BATCH 16u                /* requests parsed ahead */

struct park_list {
    struct conn *first, *last;
    uint64_t count;
};

/* PARK_SYNC: CONN_WAIT_SYNC; PARK_TICK: CONN_WAIT_TICK; PARK_LINGER: CONN_WAIT_LINGER.
 * The connections of a list that ends by time are in order of due_ms, because all are parked for
 * the same duration. */
enum park { PARK_NONE = 0, PARK_SYNC, PARK_TICK, PARK_LINGER, PARK_COUNT };

/* A worker's part in group commit (commit.c). */
struct commit {
    uint64_t ticket;         /* the highest still to be asked for; 0: none */
    uint64_t asked;          /* the highest asked of the sync thread */
    uint64_t expected;       /* how many waited when the last sync let some go */
    uint64_t gather_from_ms; /* monotonic: since when it waits for others; 0: it does not */
    uint32_t rounds;         /* for how many rounds the ticket has been put off */
    uint32_t skips;          /* for how many more syncs it does not wait for others */
    uint32_t misses;         /* how often in a row that waiting was useless */
    int wait_ms;             /* how long the next round may sleep; -1: until woken */
};

struct worker {
    oort_dataplane *plane;
    oort_store *store;
    oort_session *session;
    int epoll_fd, wake_fd, timer_fd;
    bool draining;                       /* stopping: send, execute nothing */
    bool behind;                         /* this round: writes wait */
    uint64_t timer_due_ms;               /* when timer_fd expires; 0: it is not set */
    uint64_t now_ms;                     /* this round's monotonic time */
    uint64_t wall_ms;                    /* this round's wall clock, for what is shown */
    uint64_t idle_check_ms;              /* when idle connections were last looked for */
    const oort_plane_settings *settings; /* this round's */
    _Atomic(struct shared_settings *) settings_held; /* settings.c */

    struct conn *ready_first, *ready_last;
    struct park_list parked[PARK_COUNT];
    struct timers timers; /* of connections that wait for an event */
    struct conn **conns;  /* every connection of this worker */
    uint32_t conn_count, conn_capacity;

    struct commit commit;
    struct resp_parser parsers[WORKER_BATCH];
    int32_t command[WORKER_BATCH]; /* what command_resolve says of each */
    /* The first key of each, hashed once for the prefetch and the command. */
    oort_key keys[WORKER_BATCH];
    const oort_key *first_key[WORKER_BATCH];
    struct oort_output output;
    uint8_t *buffer; /* WORKER_READ_BYTES */

    _Atomic uint64_t rounds; /* begun */
    _Atomic int32_t thread;  /* the kernel's id of the thread in oort_worker_run */
    /* Metrics: written by the worker's thread only, with shown_add and shown_set. */
    struct plane_metrics stats;
    struct command_metrics *commands; /* by position in the table */
    uint8_t *countdown;               /* likewise: calls until one is timed */

    pthread_mutex_t mail_mutex;
    struct conn_mail *mail_first, *mail_last;
    bool mail_closed; /* nothing may be posted any more */
};

/* How a wait for an event ends. */
enum event_end {
    EVENT_WOKEN,     /* the event has happened */
    EVENT_TIMED_OUT, /* the time has passed, or the client has closed its sending side */
    EVENT_CLOSED     /* the connection is closing */
};

/* What a connection waits for (event_wait.c). */
struct event_wait {
    uint64_t number; /* as oort_reply.wait */
    uint64_t due_ms; /* monotonic; UINT64_MAX: never */
    /* Called once, on the worker's thread.  Answers the connection (worker_reply) unless the
     * connection is closing, and frees the wait.  reply: of EVENT_WOKEN, else NULL. */
    void (*end)(struct worker *worker, struct conn *conn, struct event_wait *wait,
                enum event_end how, const oort_reply *reply);
};

/* A reply from another thread, with its bytes behind it.  If the reply makes its connection wait,
 * the mail lives until the wait ends. */
struct reply_mail {
    struct conn_mail mail;
    struct event_wait wait;
    oort_reply reply;
    uint8_t data[];
};

/* A message for connections of one worker. */
struct message_mail {
    struct conn_mail mail;
    oort_message *message; /* a reference */
    uint64_t count;
    struct conn *conns[];
};

/* A command that Python executes: one heap block with arguments and bytes. */
struct request {
    oort_request request;
    struct request *next;
    oort_bytes argv[];
};

/* The registry's entry.  It lives until its connection is closed, its request answered, and its
 * end reported. */
struct client {
    uint64_t id;
    struct conn *conn;       /* NULL: closed */
    struct request *request; /* not answered yet */
    _Atomic uint64_t wait;   /* number of the wait that has not ended yet; 0: none */
    bool taken;              /* the main loop has the request */
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
    const oort_clock *clock;
    const oort_transport *transport;
    struct worker *workers;
    uint32_t worker_count;
    _Atomic bool stopping;
    _Atomic(struct shared_settings *) settings; /* the present ones */
    _Atomic uint64_t message_bytes;
    struct fetcher fetcher;
    /* Shared by all threads: few calls are timed, so there is little to contend for. */
    struct plane_histograms histograms;
    struct command_histograms *command_histograms; /* by position in the table */

    pthread_mutex_t mutex; /* everything below */
    struct shared_settings *settings_retired;
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

/* worker.c: lists. */
void worker_ready(struct worker *worker, struct conn *conn);
void worker_park(struct worker *worker, struct conn *conn, enum park list);
void worker_unpark(struct worker *worker, struct conn *conn);
/* Every connection of the ready list has a turn. */
void worker_serve_ready(struct worker *worker);
/* Take over a connection that has been adopted. */
void worker_adopt(struct worker *worker, struct conn *conn);
/* Close a connection.  The connection may be freed. */
void worker_close(struct worker *worker, struct conn *conn);
/* Register or drop interest in EPOLLOUT. */
void worker_want_writable(struct worker *worker, struct conn *conn, bool want);

/* worker.c: mailbox.  Only the first two are for other threads. */
void worker_post(struct worker *worker, struct conn_mail *mail);
/* Make the worker begin a round. */
void worker_nudge(struct worker *worker);
void worker_take_mails(struct worker *worker);
/* A mail to this connection has been taken.  The connection may be freed. */
void worker_mail_done(struct conn *conn);
/* Take what is left.  Nothing may be posted after this call. */
void worker_close_mailbox(struct worker *worker);

/* worker.c: time.  A round reads the clock once. */
void worker_read_clock(struct worker *worker);
/* End everything whose time has come. */
void worker_run_timers(struct worker *worker);
/* Set timer_fd for what is due next. */
void worker_arm_timer(struct worker *worker);

/* metrics.c: count the code of an error reply. */
void worker_count_error(struct worker *worker, const uint8_t *reply, uint64_t size);

/* commit.c: let the replies go that the last sync covers. */
void worker_take_sync(struct worker *worker);
/* commit.c: ask for the next sync, or put it off.  silent: the round brought no events; may_wait:
 * the next round may sleep. */
void worker_commit(struct worker *worker, bool silent, bool may_wait);

/* turn.c: one turn of a connection that has something to do. */
void worker_serve(struct worker *worker, struct conn *conn);

/* clients.c */
int32_t clients_open(oort_dataplane *plane, oort_error *error);
void clients_close(oort_dataplane *plane);
/* The caller of the following five holds the mutex. */
struct client *clients_find(oort_dataplane *plane, uint64_t id);
void clients_report(oort_dataplane *plane, struct client *client);
void clients_release(oort_dataplane *plane, struct client *client);
void plane_signal(oort_dataplane *plane);
/* Close a connection soon. */
void clients_kill(struct conn *conn);
/* The connection is gone (takes the mutex). */
void clients_gone(oort_dataplane *plane, struct conn *conn);

/* requests.c: hand a command over to Python.  false: memory is short. */
bool requests_post(oort_dataplane *plane, struct conn *conn, const oort_bytes *argv, uint32_t argc,
                   int32_t command);
/* Are the changes of a reply valid? */
bool requests_reply_valid(const oort_reply *reply);
/* A copy of a reply.  NULL: memory is short. */
struct reply_mail *requests_reply_mail(const oort_reply *reply, enum conn_mail_kind kind);
/* MAIL_REPLY; keeps or frees the mail. */
void requests_take_reply(struct worker *worker, struct conn *conn, struct reply_mail *mail);
/* Append a reply, and change the connection as the reply says.  Its next turn sends the reply, or
 * closes the connection if memory was short. */
void worker_reply(struct worker *worker, struct conn *conn, const oort_reply *reply);

/* event_wait.c: a wait is announced before another thread can try to end it.  It begins on the
 * worker's thread, before the worker takes its next mail. */
void event_wait_announce(struct client *client, uint64_t number);
void event_wait_begin(struct worker *worker, struct conn *conn, struct event_wait *wait);
/* The reply that started a wait is in the mail, which lives until the wait ends. */
void event_wait_begin_reply(struct worker *worker, struct conn *conn, struct reply_mail *mail);
/* The time has passed, or the client has closed its sending side. */
void event_wait_time_out(struct worker *worker, struct conn *conn);
/* MAIL_WAKE; frees the mail. */
void event_wait_wake(struct worker *worker, struct conn *conn, struct reply_mail *mail);
/* The connection is closing. */
void event_wait_close(struct worker *worker, struct conn *conn);

/* messages.c: MAIL_MESSAGE; frees the mail. */
void messages_take(struct worker *worker, struct message_mail *mail);

/* settings.c */
int32_t settings_open(oort_dataplane *plane, const oort_plane_settings *settings,
                      oort_error *error);
void settings_close(oort_dataplane *plane);
/* Once a round: worker->settings are the present settings, until the next call. */
void settings_pick_up(struct worker *worker);

/* fetch.c: read conn->cold into memory, then post conn->fetch_mail.  false: there is no thread. */
int32_t fetcher_open(struct fetcher *fetcher, oort_store *store, struct histogram *time,
                     oort_error *error);
bool fetcher_submit(struct fetcher *fetcher, struct conn *conn);
/* Returns when every thread has ended.  Jobs that were not begun are posted as failed. */
void fetcher_close(struct fetcher *fetcher);

#endif
