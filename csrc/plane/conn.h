/*
 * conn.h: one client's connection: its socket, the bytes it has sent that are
 * not executed yet, and the replies it has not taken yet.
 *
 * It knows neither commands nor epoll: the worker (plane.c, turn.c) decides
 * when to read, execute and send.  Everything belongs to the worker's thread but
 * the fields under "shown", which any thread may read, and the mails.
 *
 * An idle connection owns no buffer at all: requests are read into its worker's
 * buffer, replies are written to its worker's output.  Only what is left
 * over (an incomplete request, unsent replies) moves into the connection.
 */
#ifndef OORT_CONN_H
#define OORT_CONN_H

#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "oort.h"
#include "protocol/resp.h"

struct client;
struct conn;
struct worker;

/* How bytes move; both fail as recv and sendmsg do (-1 and errno, EAGAIN: not now) and never
 * raise SIGPIPE.  Plain sockets today; TLS is another such table. */
struct oort_transport {
    ssize_t (*recv)(struct conn *conn, void *data, size_t size);
    ssize_t (*send)(struct conn *conn, const struct iovec *parts, int count);
};
extern const struct oort_transport oort_plain_transport;

/* Why a connection executes nothing at the moment. */
enum conn_wait {
    CONN_WAIT_SYNC = 1,   /* its replies wait for the log's sync: nothing is sent either */
    CONN_WAIT_REPLY = 2,  /* its cold command is with the main loop */
    CONN_WAIT_FETCH = 4,  /* its command's record is being read from disk */
    CONN_WAIT_TICK = 8,   /* too much is unsent, or the store is behind: until the next tick */
    CONN_WAIT_LINGER = 16 /* all is sent; the client is given a moment to read it */
};

enum conn_send_result {
    CONN_SEND_DONE = 0,   /* all of it is with the kernel */
    CONN_SEND_MORE = 1,   /* a slice is; the socket takes more */
    CONN_SEND_FULL = 2,   /* the socket takes no more now */
    CONN_SEND_BROKEN = -1 /* the peer is gone */
};

/* How far an output has been sent. */
struct conn_position {
    uint64_t data;      /* bytes of output->data */
    uint64_t pin_bytes; /* of pins[pin] */
    uint32_t pin;       /* those before it are sent and unpinned */
};

/* Unparsed bytes: data[start, end). */
struct conn_input {
    uint8_t *data;
    uint64_t start, end, capacity;
};

enum conn_mail_kind { MAIL_ADOPT, MAIL_KILL, MAIL_FETCHED, MAIL_REPLY };

/* A message to the connection's worker.  The connection outlives it (conn.mails). */
struct conn_mail {
    struct conn_mail *next;
    struct conn *conn;
    uint8_t kind;
};

struct conn {
    const struct oort_transport *transport;
    struct worker *worker;
    struct client *client; /* its place in the registry */
    uint64_t id;
    int fd;
    uint32_t slot;  /* position in worker->conns */
    uint32_t waits; /* conn_wait bits */
    uint32_t flags; /* oort_connection_flag */
    uint8_t database, protocol;
    uint8_t parked;     /* a park_list, 0: none */
    bool readable;      /* the socket may have bytes we have not read */
    bool writable;      /* the socket said that it takes bytes again */
    bool hangup;        /* the peer has shut its side: read up to the end */
    bool eof;           /* and we have */
    bool want_writable; /* EPOLLOUT is registered */
    bool in_progress;   /* parser holds the state of an incomplete request */
    bool has_request;   /* parser holds a complete request to be executed again */
    bool starved;       /* input holds no complete request: only more bytes help */
    bool closing;       /* execute nothing more; close when all is sent */
    bool dead;          /* closed; freed when nothing points to it any more */
    bool ready;         /* in worker's ready list */
    struct conn *ready_next;
    struct conn *park_previous, *park_next;

    struct conn_input input;
    struct resp_parser parser;
    struct oort_output output;
    struct conn_position sent; /* of output */
    uint64_t pause_bytes;      /* unsent bytes at which it is paused */

    uint64_t ticket;         /* CONN_WAIT_SYNC: what must be synced */
    struct output_mark held; /* and where the replies that wait for it begin */
    uint64_t linger_until_ms;
    uint32_t fetches;     /* of the command being executed */
    int32_t cold_command; /* CONN_WAIT_REPLY: position in the table */

    /* Shown to any thread: written by the worker only, relaxed. */
    _Atomic uint32_t shown_flags;
    _Atomic uint8_t shown_database, shown_protocol;
    _Atomic int32_t last_command;
    uint64_t created_ms; /* constant */
    _Atomic uint64_t active_ms;
    _Atomic uint64_t query_bytes, query_free, output_bytes;
    _Atomic uint64_t commands, bytes_in, bytes_out;

    _Atomic uint32_t mails; /* on their way to the worker */
    bool killed;            /* under the plane's mutex: kill_mail is used */
    struct conn_mail adopt_mail, kill_mail, fetch_mail;
    oort_cold cold; /* what the fetcher brings in */
    int32_t fetch_status;
    struct conn *fetch_next;
};

/* A counter that one thread writes and others read. */
static inline void shown_add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

static inline void shown_set(_Atomic uint64_t *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static inline uint64_t shown_get(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Makes the descriptor non-blocking; NULL: memory is short. */
struct conn *conn_new(int fd, uint64_t id, uint32_t flags);
/* Unpin, free every buffer, close the socket; the struct stays. */
void conn_shut(struct conn *conn);

/* Make room for the next read behind input.end and say how much there is, 0: memory is short.
 * Grows with what has arrived, whatever has been announced. */
uint64_t conn_input_room(struct conn *conn);
/* Keep bytes that lay in the worker's buffer. */
bool conn_input_keep(struct conn *conn, const uint8_t *data, uint64_t size);
/* Drop what has been executed; an empty input gives its memory back. */
void conn_input_consume(struct conn *conn, uint64_t size);

/* Bytes of replies not yet with the kernel.  The first value sent from where it lies is
 * not counted: it takes none of our memory. */
uint64_t conn_unsent(const struct conn *conn);
bool conn_all_sent(const struct conn *conn);
/* Hand one slice of an output (the connection's own, or its worker's) to the kernel.
 * Values are unpinned once they are sent. */
int conn_send(struct conn *conn, struct oort_output *output, struct conn_position *position);
/* Move what is left of the worker's output into the connection's, which is empty. */
bool conn_output_keep(struct conn *conn, struct oort_output *output,
                      const struct conn_position *position);
/* Send a slice of its own output. */
int conn_flush(struct conn *conn);

#endif
