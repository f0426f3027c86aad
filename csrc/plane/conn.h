/*
 * conn.h: one client's connection: its socket, the bytes it has sent that are not executed yet,
 * and the bytes it has not been sent yet.
 *
 * It knows neither commands nor epoll.  The worker (worker.c, turn.c) decides when to read,
 * execute and send.  Everything belongs to the worker's thread, except for the fields under
 * "shown", which any thread may read, and the mails.
 *
 * An idle connection owns no buffer.  Requests are read into its worker's buffer, and replies are
 * written to its worker's output.  Only what is left over moves into the connection: an incomplete
 * request, unsent replies.
 */
#ifndef OORT_CONN_H
#define OORT_CONN_H

#include <stdatomic.h>

#include "oort.h"
#include "plane/transport.h"
#include "protocol/resp.h"

#define CONN_PAUSE_BYTES (1024u * 1024u) /* unsent bytes at which a connection is paused */

struct client;
struct conn;
struct event_wait;
struct worker;

/* Why a connection executes nothing at the moment. */
enum conn_wait {
    CONN_WAIT_SYNC = 1,    /* its replies wait for the log's sync, and nothing is sent either */
    CONN_WAIT_REPLY = 2,   /* Python has its command; messages wait for the reply */
    CONN_WAIT_FETCH = 4,   /* its command's record is being read from disk */
    CONN_WAIT_TICK = 8,    /* too much is unsent, or the store is behind: paused for a tick */
    CONN_WAIT_LINGER = 16, /* all is sent, and the client has a moment to read it */
    CONN_WAIT_EVENT = 32   /* its command is answered when an event happens (event_wait.c) */
};

enum conn_send_result {
    CONN_SEND_DONE = 0,   /* the kernel has all of it */
    CONN_SEND_MORE = 1,   /* the kernel has a slice, and the socket takes more */
    CONN_SEND_FULL = 2,   /* the socket takes no more now */
    CONN_SEND_BROKEN = -1 /* the peer is gone */
};

/* How far an output has been sent. */
struct conn_position {
    uint64_t data;      /* bytes of output->data */
    uint64_t pin_bytes; /* of pins[pin] */
    uint32_t pin;       /* the pins before this one are sent and released */
};

/* Unparsed bytes: data[start, end). */
struct conn_input {
    uint8_t *data;
    uint64_t start, end, capacity;
};

enum conn_mail_kind { MAIL_ADOPT, MAIL_KILL, MAIL_FETCHED, MAIL_REPLY, MAIL_WAKE, MAIL_MESSAGE };

/* What another thread tells a worker about a connection, which outlives the mail (conn.mails). */
struct conn_mail {
    struct conn_mail *next;
    struct conn *conn; /* NULL: MAIL_MESSAGE, which is for many connections */
    uint8_t kind;
};

struct conn {
    const oort_transport *transport;
    struct worker *worker;
    struct client *client; /* its entry in the registry */
    uint64_t id;
    int fd;
    uint32_t slot;  /* position in worker->conns */
    uint32_t waits; /* conn_wait bits */
    uint32_t flags; /* oort_connection_flag */
    uint8_t database, protocol;
    uint8_t parked;     /* an enum park */
    bool readable;      /* the socket may have bytes that are not read yet */
    bool writable;      /* the socket reported that it takes bytes again */
    bool hangup;        /* the peer has closed its sending side; bytes may still be unread */
    bool eof;           /* all that the peer has sent is read */
    bool want_writable; /* EPOLLOUT is registered */
    bool in_progress;   /* parser holds the state of an incomplete request */
    bool has_request;   /* parser holds a complete request to be executed again */
    bool starved;       /* input holds no complete request: only more bytes help */
    bool closing;       /* execute nothing more; close when all is sent */
    bool dead;          /* closed; freed when nothing points to it any more */
    bool ready;         /* in worker's ready list */
    struct conn *ready_next;
    struct conn *park_previous, *park_next;
    uint64_t due_ms;          /* parked for a time, or in worker's timers: until then */
    uint32_t timer;           /* in worker's timers: position + 1; 0: not there */
    struct event_wait *event; /* CONN_WAIT_EVENT */

    struct conn_input input;
    struct resp_parser parser;
    struct oort_output output;
    struct conn_position sent; /* of output */
    struct oort_output behind; /* CONN_WAIT_REPLY: messages that go out after the reply */
    uint64_t pause_bytes;      /* unsent bytes at which it is paused */

    uint64_t ticket;         /* CONN_WAIT_SYNC: what must be synced */
    struct output_mark held; /* CONN_WAIT_SYNC: where the replies that wait begin */
    uint64_t used_ms;        /* monotonic: the last bytes read, or the end of a wait */
    uint32_t fetches;        /* of the command being executed */
    int32_t request_command; /* of the last request to Python: position in the table */

    /* Shown to any thread.  Only the worker writes, relaxed. */
    _Atomic uint32_t shown_flags;
    _Atomic uint8_t shown_database, shown_protocol;
    _Atomic int32_t last_command;
    uint64_t created_ms;        /* wall clock; constant */
    _Atomic uint64_t active_ms; /* wall clock */
    _Atomic uint64_t query_bytes, query_free, output_bytes;
    _Atomic uint64_t commands, bytes_in, bytes_out;

    _Atomic uint32_t mails; /* on their way to the worker */
    bool killed;            /* under the plane's mutex: kill_mail is in use */
    struct conn_mail adopt_mail, kill_mail, fetch_mail;
    oort_cold cold; /* what the fetcher reads */
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

/* now_ms: the wall clock.  Opens the transport.  NULL: memory is short, and fd is still open. */
struct conn *conn_new(int fd, uint32_t flags, const oort_transport *transport, uint64_t now_ms);
/* Release every pin, free every buffer, close the socket; the struct stays. */
void conn_shut(struct conn *conn);

/* Make room for the next read behind input.end.  Returns how many bytes fit; 0: memory is short.
 * The buffer grows with what has arrived, never with what is announced. */
uint64_t conn_input_room(struct conn *conn);
/* Keep bytes of the worker's buffer. */
bool conn_input_keep(struct conn *conn, const uint8_t *data, uint64_t size);
/* Drop what has been executed; an empty input frees its memory. */
void conn_input_consume(struct conn *conn, uint64_t size);

/* Bytes of replies and messages that the kernel does not have yet.  If a value of the store is
 * next, it is not counted: it takes no memory of ours, and its client may be reading it. */
uint64_t conn_unsent(const struct conn *conn);
/* Is the output empty?  Messages in `behind` do not count: they cannot be sent yet. */
bool conn_all_sent(const struct conn *conn);
/* Hand one slice of an output (the connection's own, or its worker's) to the kernel.
 * Releases the pins that are sent. */
int conn_send(struct conn *conn, struct oort_output *output, struct conn_position *position);
/* Move what is left of the worker's output into the connection's, which is empty. */
bool conn_output_keep(struct conn *conn, struct oort_output *output,
                      const struct conn_position *position);
/* Send a slice of its own output. */
int conn_flush(struct conn *conn);
/* Move the messages that waited for a reply behind the output. */
void conn_output_behind(struct conn *conn);

#endif
