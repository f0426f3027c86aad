/*
 * turn.c: one connection's turn: read once, parse and execute what is complete, send the replies,
 * and keep what is left over.
 *
 * Order: replies leave in the order of their requests, because a connection that waits (for the
 * main loop, the disk, a sync or an event) executes nothing.
 *
 * Fairness: a turn reads one buffer, stops executing after TURN_OUTPUT bytes of replies, and sends
 * one slice.  The rest waits for the next round.
 *
 * Slow readers: a client may write a whole pipeline before it reads a reply, so both sides could
 * block forever if the worker stopped reading its requests for good.  A connection with more than
 * CONN_PAUSE_BYTES unsent is therefore paused for a tick at a time, and may grow by as much again
 * after each tick.  At the settings' output_bytes it is dropped.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "commands/table.h"
#include "plane/plane.h"

#define TURN_OUTPUT (256u * 1024u)
#define OUTPUT_KEEP (256u * 1024u) /* a larger shared output is freed after its turn */
#define ARGV_KEEP 1024u            /* a parser with more arguments is freed after its batch */
#define PREFETCH_KEY_BYTES 1024u   /* a longer key is not hashed ahead */
#define LINGER_READS 64
#define TIMED_CALLS 256u             /* calls of a command that are all timed */
#define TIMED_EVERY (UINT8_MAX + 1u) /* later one call in so many is: the countdown is a byte */
#define TIMED_MOST_NS UINT64_C(1000000)
/* A command over n cold records comes back cold n times, and more often if a fetched record is
 * evicted again before the command's turn. */
#define FETCHES_CAP(argc) (64u + 4u * (uint64_t)(argc))

enum turn_end {
    TURN_STARVED, /* more bytes are needed */
    TURN_WAITS,   /* a conn_wait is set, or the connection is closing */
    TURN_BUDGET,  /* enough was done for this round */
    TURN_BROKEN   /* close at once */
};

struct turn {
    struct worker *worker;
    struct conn *conn;
    struct oort_call call;
    uint8_t *data; /* unparsed bytes: data[offset, size) */
    uint64_t size, offset;
    uint64_t output_stop; /* size of the output at which the budget is used up */
    uint64_t commands;
    uint64_t reply_at; /* where the reply of the present request begins in the output */
    bool shared;       /* data is the worker's buffer */
};

static void swap_parsers(struct resp_parser *a, struct resp_parser *b)
{
    struct resp_parser kept = *a;
    *a = *b;
    *b = kept;
}

static void reset_parser(struct resp_parser *parser)
{
    resp_parser_free(parser);
    resp_parser_init(parser);
}

/* The first calls are timed one by one.  Later a timed call stands for TIMED_EVERY.  If it took very
 * long, for a new segment perhaps, each of the other calls adds only a millisecond to the sum. */
static void count_time(struct turn *turn, struct command_metrics *stats)
{
    struct worker *worker = turn->worker;
    uint32_t command = (uint32_t)turn->call.command;
    uint64_t took = (uint64_t)(clock_monotonic_ns() - turn->call.begun_ns), sum = took;
    uint64_t calls = 1;
    if (shown_get(&stats->calls) < TIMED_CALLS) {
        worker->countdown[command] = 0;
    } else {
        calls = TIMED_EVERY;
        sum += (TIMED_EVERY - 1) * (took < TIMED_MOST_NS ? took : TIMED_MOST_NS);
    }
    histogram_add(&worker->plane->command_histograms[command].latency, took, calls, sum);
}

static void count_call(struct turn *turn)
{
    const struct oort_call *call = &turn->call;

    turn->commands++;
    if (call->failed || call->rejected)
        worker_count_error(turn->worker, call->output->data + turn->reply_at,
                           call->output->size - turn->reply_at);
    if (call->command < 0)
        return;
    struct command_metrics *stats = &turn->worker->commands[call->command];
    if (call->rejected) {
        shown_add(&stats->rejected, 1);
    } else {
        shown_add(&stats->calls, 1);
        if (call->failed)
            shown_add(&stats->failed, 1);
    }
    if (call->begun_ns != 0)
        count_time(turn, stats);
    atomic_store_explicit(&turn->conn->last_command, call->command, memory_order_relaxed);
}

/* The request in `parser` needs the disk: the connection waits with it, parsed. */
static enum turn_end wait_for_fetch(struct turn *turn, struct resp_parser *parser)
{
    struct conn *conn = turn->conn;
    struct worker *worker = turn->worker;

    if (conn->fetch_status < 0 || ++conn->fetches > FETCHES_CAP(parser->argc)) {
        reply_error(turn->call.output,
                    "ERR the value could not be read from disk; see the server log");
        turn->call.failed = true;
        count_call(turn);
        conn->fetch_status = 0;
        conn->fetches = 0;
        conn->has_request = false;
        turn->offset += parser->consumed;
        return TURN_STARVED;
    }
    if (conn->fetches == 1)
        shown_add(&worker->stats.cold_reads, 1);
    if (turn->call.begun_ns != 0)
        worker->countdown[turn->call.command] = 0; /* its next call is timed instead */
    if (parser != &conn->parser)
        swap_parsers(parser, &conn->parser);
    conn->has_request = true;
    conn->cold = oort_session_cold(worker->session);
    atomic_fetch_add(&conn->mails, 1);
    if (!fetcher_submit(&worker->plane->fetcher, conn)) {
        atomic_fetch_sub(&conn->mails, 1);
        return TURN_BROKEN;
    }
    conn->waits |= CONN_WAIT_FETCH;
    return TURN_WAITS;
}

/* Execute one request, of this command.  TURN_STARVED: done, go on with the next. */
static enum turn_end execute(struct turn *turn, struct resp_parser *parser, int32_t command)
{
    struct conn *conn = turn->conn;
    struct oort_call *call = &turn->call;

    if (parser->argc == 0) {
        turn->offset += parser->consumed;
        return TURN_STARVED;
    }
    turn->reply_at = call->output->size;
    call->argv = parser->argv;
    call->argc = parser->argc;
    call->command = command;
    int32_t result = oort_execute(call);
    if (result == OORT_CALL_COLD)
        return wait_for_fetch(turn, parser);
    if (result == OORT_CALL_LATER) {
        if (parser != &conn->parser)
            swap_parsers(parser, &conn->parser);
        conn->has_request = true;
        worker_park(turn->worker, conn, PARK_TICK);
        return TURN_WAITS;
    }
    if (result == OORT_CALL_FOREIGN) {
        shown_add(&turn->worker->stats.protocol_errors, 1);
        return TURN_BROKEN;
    }
    conn->fetches = 0;
    conn->fetch_status = 0;
    conn->has_request = false;
    turn->offset += parser->consumed;
    if (result == OORT_CALL_DONE) {
        count_call(turn);
        return call->output->failed ? TURN_BROKEN : TURN_STARVED;
    }
    if (!requests_post(turn->worker->plane, conn, parser->argv, parser->argc, call->command))
        return TURN_BROKEN;
    conn->request_command = call->command;
    conn->waits |= CONN_WAIT_REPLY;
    count_call(turn);
    return TURN_WAITS;
}

static enum turn_end protocol_error(struct turn *turn, const struct resp_parser *parser)
{
    char text[RESP_ERROR_BYTES + 8] = "ERR ";

    resp_parser_error(parser, text + 4);
    turn->reply_at = turn->call.output->size;
    reply_error(turn->call.output, text);
    worker_count_error(turn->worker, turn->call.output->data + turn->reply_at,
                       turn->call.output->size - turn->reply_at);
    shown_add(&turn->worker->stats.protocol_errors, 1);
    turn->conn->closing = true;
    return turn->call.output->failed ? TURN_BROKEN : TURN_WAITS;
}

/* Parse a batch ahead, and look its commands up, so that the memory of their first keys is on its
 * way while the first requests are executed. */
static uint32_t parse_batch(struct turn *turn, int *result)
{
    struct worker *worker = turn->worker;
    struct conn *conn = turn->conn;
    const struct resp_limits limits = {
        .bulk_cap = worker->settings->value_cap,
        .authenticated = (turn->call.flags & OORT_CONN_AUTHENTICATED) != 0,
    };
    uint64_t at = turn->offset;
    uint32_t count = 0;

    *result = RESP_REQUEST;
    while (count < WORKER_BATCH && at < turn->size) {
        struct resp_parser *parser = &worker->parsers[count];
        bool is_inline = turn->data[at] != '*';
        /* Parsing an inline request changes its bytes: it must not be parsed and put back. */
        if (is_inline && count > 0)
            break;
        if (count == 0 && conn->in_progress) {
            swap_parsers(parser, &conn->parser);
            conn->in_progress = false;
        }
        *result = resp_parse(parser, turn->data + at, turn->size - at, &limits);
        if (*result != RESP_REQUEST)
            break;
        at += parser->consumed;
        count++;
        if (is_inline)
            break;
    }
    uint32_t keys = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct resp_parser *parser = &worker->parsers[i];
        worker->first_key[i] = NULL;
        if (parser->argc == 0)
            continue;
        uint32_t first;
        worker->command[i] = command_resolve(parser->argv, parser->argc, &first);
        if (first == 0 || first >= parser->argc || parser->argv[first].size > PREFETCH_KEY_BYTES)
            continue;
        oort_key *key = &worker->keys[keys++];
        oort_key_init(key, parser->argv[first].data, parser->argv[first].size, conn->database);
        worker->first_key[i] = key;
    }
    if (keys > 1)
        oort_prefetch(worker->session, worker->keys, keys);
    return count;
}

static enum turn_end execute_batch(struct turn *turn)
{
    struct worker *worker = turn->worker;
    struct conn *conn = turn->conn;
    enum turn_end end = TURN_STARVED;
    int result;
    uint32_t count = parse_batch(turn, &result);
    uint32_t done = 0;

    while (done < count && end == TURN_STARVED) {
        turn->call.first_key = worker->first_key[done];
        end = execute(turn, &worker->parsers[done], worker->command[done]);
        done++;
        if (end == TURN_STARVED && turn->call.output->size >= turn->output_stop)
            end = TURN_BUDGET;
    }
    turn->call.first_key = NULL;
    for (uint32_t i = 0; i < count; i++)
        if (worker->parsers[i].argv_capacity > ARGV_KEEP)
            reset_parser(&worker->parsers[i]);
    if (result == RESP_REQUEST)
        return end;
    struct resp_parser *last = &worker->parsers[count];
    if (end == TURN_STARVED && result == RESP_PARTIAL) {
        swap_parsers(last, &conn->parser);
        conn->in_progress = true;
        conn->starved = true;
        return end;
    }
    if (end == TURN_STARVED)
        end = result == RESP_ERROR ? protocol_error(turn, last) : TURN_BROKEN;
    reset_parser(last);
    return end;
}

static enum turn_end execute_window(struct turn *turn)
{
    struct conn *conn = turn->conn;
    enum turn_end end = TURN_STARVED;

    if (conn->has_request) {
        uint32_t first_key;
        int32_t command = command_resolve(conn->parser.argv, conn->parser.argc, &first_key);
        end = execute(turn, &conn->parser, command);
        if (end == TURN_STARVED && conn->parser.argv_capacity > 0)
            reset_parser(&conn->parser);
    }
    while (end == TURN_STARVED && turn->offset < turn->size && !conn->starved)
        end = execute_batch(turn);
    return end;
}

/* Read once.  false: close at once. */
static bool read_some(struct turn *turn)
{
    struct worker *worker = turn->worker;
    struct conn *conn = turn->conn;
    bool own = conn->input.end > conn->input.start;
    uint64_t room = own ? conn_input_room(conn) : WORKER_READ_BYTES;
    uint8_t *into = own ? conn->input.data + conn->input.end : worker->buffer;

    if (room == 0)
        return false;
    ssize_t got = conn->transport->recv(conn, into, room);
    if (got < 0) {
        if (errno == EINTR)
            return true;
        conn->readable = false;
        return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    if (got == 0) {
        conn->eof = true;
        conn->readable = false;
        return true;
    }
    /* Edge triggered: a short read has emptied the socket, and later bytes are a new edge.  But if
     * the peer has closed its side, the end is still to be read. */
    if ((uint64_t)got < room && !conn->hangup)
        conn->readable = false;
    conn->starved = false;
    shown_add(&conn->bytes_in, (uint64_t)got);
    shown_add(&worker->stats.bytes_in, (uint64_t)got);
    conn->used_ms = worker->now_ms;
    shown_set(&conn->active_ms, worker->wall_ms);
    if (own) {
        conn->input.end += (uint64_t)got;
        turn->data = conn->input.data + conn->input.start;
        turn->size = conn->input.end - conn->input.start;
    } else {
        turn->data = worker->buffer;
        turn->size = (uint64_t)got;
        turn->shared = true;
    }
    return true;
}

/* Keep what was not executed.  The arguments of a parsed request that waits are in these bytes. */
static bool keep_input(struct turn *turn)
{
    struct conn *conn = turn->conn;
    uint64_t left = turn->size - turn->offset;

    OORT_ASSERT(turn->offset <= turn->size, "a turn executes no more bytes than there are");
    if (!turn->shared) {
        if (turn->offset > 0)
            conn_input_consume(conn, turn->offset);
        return true;
    }
    if (left == 0 || conn->closing)
        return true;
    const uint8_t *from = turn->data + turn->offset;
    if (!conn_input_keep(conn, from, left))
        return false;
    if (conn->has_request) {
        oort_bytes *argv = conn->parser.argv;
        for (uint32_t i = 0; i < conn->parser.argc; i++)
            argv[i].data = conn->input.data + (argv[i].data - from);
    }
    return true;
}

/* Bytes arrive, commands are executed, replies are appended.  false: close at once. */
static bool take_turn(struct turn *turn)
{
    struct conn *conn = turn->conn;
    enum turn_end end = TURN_STARVED;
    bool has_read = false;

    turn->data = conn->input.data == NULL ? NULL : conn->input.data + conn->input.start;
    turn->size = conn->input.end - conn->input.start;
    for (;;) {
        if (turn->size > turn->offset && !conn->starved)
            end = execute_window(turn);
        if (end != TURN_STARVED || has_read || !conn->readable)
            break;
        if (turn->offset > 0) {
            conn_input_consume(conn, turn->offset);
            turn->offset = 0;
        }
        has_read = true;
        turn->size = 0;
        if (!read_some(turn))
            return false;
        if (turn->size == 0) {
            /* No bytes came, so the rest stays where it is. */
            turn->size = conn->input.end - conn->input.start;
            break;
        }
    }
    if (end == TURN_BROKEN)
        return false;
    bool kept = keep_input(turn);
    if (end == TURN_BUDGET || (end == TURN_STARVED && conn->readable))
        worker_ready(turn->worker, conn);
    return kept;
}

/* Send the connection's own output.  false: the connection is closed. */
static bool send_own(struct worker *worker, struct conn *conn)
{
    if (conn_all_sent(conn) || (conn->waits & CONN_WAIT_SYNC) != 0 ||
        (conn->want_writable && !conn->writable))
        return true;
    conn->writable = false;
    uint64_t before = shown_get(&conn->bytes_out);
    int result = conn_flush(conn);
    shown_add(&worker->stats.bytes_out, shown_get(&conn->bytes_out) - before);
    switch (result) {
    case CONN_SEND_DONE:
        worker_want_writable(worker, conn, false);
        conn->pause_bytes = CONN_PAUSE_BYTES;
        return true;
    case CONN_SEND_MORE:
        conn->writable = true;
        worker_ready(worker, conn);
        return true;
    case CONN_SEND_FULL:
        worker_want_writable(worker, conn, true);
        return true;
    default:
        worker_close(worker, conn);
        return false;
    }
}

/* Send the worker's output, and move what the socket does not take into the connection's.  false:
 * the connection is closed. */
static bool send_shared(struct worker *worker, struct conn *conn)
{
    struct conn_position position = {0};
    int result = CONN_SEND_FULL;

    if ((conn->waits & CONN_WAIT_SYNC) == 0) {
        uint64_t before = shown_get(&conn->bytes_out);
        result = conn_send(conn, &worker->output, &position);
        shown_add(&worker->stats.bytes_out, shown_get(&conn->bytes_out) - before);
    }
    bool kept = true;
    if (result == CONN_SEND_FULL || result == CONN_SEND_MORE)
        kept = conn_output_keep(conn, &worker->output, &position);
    if (result == CONN_SEND_BROKEN || !kept) {
        worker_close(worker, conn);
        return false;
    }
    if (result == CONN_SEND_MORE) {
        conn->writable = true;
        worker_ready(worker, conn);
    } else if (result == CONN_SEND_FULL && (conn->waits & CONN_WAIT_SYNC) == 0) {
        worker_want_writable(worker, conn, true);
    }
    return true;
}

static void clear_shared(struct worker *worker)
{
    output_drop_pins(&worker->output, 0);
    worker->output.size = 0;
    worker->output.failed = false;
    if (worker->output.capacity > OUTPUT_KEEP)
        output_free(&worker->output);
}

/* After the commands of a turn: hold their replies if the log must be synced first. */
static void gate(struct worker *worker, struct conn *conn, struct output_mark mark)
{
    uint64_t ticket = oort_session_ticket(worker->session);
    if (ticket == 0)
        return;
    uint64_t synced = oort_store_synced(worker->store);
    if (synced != UINT64_MAX && synced >= ticket)
        return;
    conn->ticket = ticket;
    if (ticket > worker->commit.ticket)
        worker->commit.ticket = ticket;
    conn->held = mark;
    /* The sync comes before a pause, which is decided again afterwards. */
    if (conn->parked == PARK_TICK)
        worker_unpark(worker, conn);
    worker_park(worker, conn, PARK_SYNC);
    if (synced == UINT64_MAX)
        worker_nudge(worker); /* the store has failed: no sync will wake the worker */
}

/* Before the replies leave, so that a client that has read a reply finds its command counted. */
static void count_turn(struct worker *worker, struct conn *conn, const struct turn *turn)
{
    if (turn->commands == 0)
        return;
    shown_add(&conn->commands, turn->commands);
    shown_add(&worker->stats.commands, turn->commands);
    if (turn->call.hits > 0)
        shown_add(&worker->stats.hits, turn->call.hits);
    if (turn->call.misses > 0)
        shown_add(&worker->stats.misses, turn->call.misses);
}

static void show_buffers(struct conn *conn)
{
    shown_set(&conn->query_bytes, conn->input.end - conn->input.start);
    shown_set(&conn->query_free, conn->input.capacity - (conn->input.end - conn->input.start));
    shown_set(&conn->output_bytes, conn_unsent(conn));
}

/* All is sent and nothing more will be.  Tell the peer, and give it a moment to read before the
 * socket is closed: closing a socket with unread bytes resets the connection and destroys replies.
 */
static void finish(struct worker *worker, struct conn *conn)
{
    if (conn->eof || conn->transport->shutdown(conn) != 0) {
        worker_close(worker, conn);
        return;
    }
    if (conn->parked != PARK_NONE)
        worker_unpark(worker, conn);
    conn_input_consume(conn, conn->input.end - conn->input.start);
    worker_park(worker, conn, PARK_LINGER);
    worker_ready(worker, conn);
}

static void linger(struct worker *worker, struct conn *conn)
{
    for (int i = 0; i < LINGER_READS; i++) {
        ssize_t got = conn->transport->recv(conn, worker->buffer, WORKER_READ_BYTES);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            worker_close(worker, conn);
            return;
        }
        if (got < 0 && errno != EINTR)
            return;
    }
    worker_ready(worker, conn);
}

/* Read and execute.  false: the connection is closed. */
static bool run_commands(struct worker *worker, struct conn *conn)
{
    if (conn->pause_bytes == 0)
        conn->pause_bytes = CONN_PAUSE_BYTES;
    if (conn_unsent(conn) >= conn->pause_bytes) {
        worker_park(worker, conn, PARK_TICK);
        return true;
    }
    bool own = !conn_all_sent(conn);
    struct oort_output *output = own ? &conn->output : &worker->output;
    struct output_mark mark = output_mark(output);
    uint32_t flags = conn->flags;
    if (worker->settings->no_password != 0)
        flags |= OORT_CONN_AUTHENTICATED; /* for as long as there is no password */
    struct turn turn = {
        .worker = worker,
        .conn = conn,
        .call = {.session = worker->session,
                 .flags = flags,
                 .output = output,
                 .value_cap = worker->settings->value_cap,
                 .countdown = worker->countdown,
                 .database = conn->database,
                 .protocol = conn->protocol,
                 .writes_wait = worker->behind},
        .output_stop = output->size + TURN_OUTPUT,
    };
    bool alive = take_turn(&turn);
    count_turn(worker, conn, &turn);
    if (turn.commands > 0)
        gate(worker, conn, mark);
    if (!alive) {
        if (!own)
            clear_shared(worker);
        worker_close(worker, conn);
        return false;
    }
    if (!own && (output->size > 0 || output->pin_count > 0)) {
        if (!send_shared(worker, conn)) {
            clear_shared(worker);
            return false;
        }
        clear_shared(worker);
    }
    if (conn->input.end - conn->input.start > worker->settings->query_bytes) {
        shown_add(&worker->stats.dropped_query, 1);
        worker_close(worker, conn);
        return false;
    }
    return true;
}

void worker_serve(struct worker *worker, struct conn *conn)
{
    OORT_ASSERT(!conn->dead, "a closed connection has no turn");
    if ((conn->waits & CONN_WAIT_LINGER) != 0) {
        linger(worker, conn);
        return;
    }
    if ((conn->waits & CONN_WAIT_EVENT) != 0 && conn->hangup)
        event_wait_time_out(worker, conn);
    if (conn->output.failed || conn->behind.failed) {
        worker_close(worker, conn);
        return;
    }
    if (conn->writable && !send_own(worker, conn))
        return;
    if ((conn->waits & CONN_WAIT_TICK) != 0 && conn_all_sent(conn) && !worker->behind)
        worker_unpark(worker, conn);
    if (conn->waits == 0 && !conn->closing && !worker->draining && !run_commands(worker, conn))
        return;
    if (!conn->want_writable && !conn->writable && !send_own(worker, conn))
        return;
    if (conn_unsent(conn) > worker->settings->output_bytes) {
        shown_add(&worker->stats.dropped_slow, 1);
        worker_close(worker, conn);
        return;
    }
    show_buffers(conn);
    if (conn->eof && conn->waits == 0 && !conn->ready)
        conn->closing = true;
    if (conn->closing && conn->waits == 0 && conn_all_sent(conn) && !worker->draining)
        finish(worker, conn);
}
