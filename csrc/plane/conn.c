/*
 * conn.c: a connection's buffers.  See conn.h.
 *
 * Limit: one call of conn_send hands at most CONN_SEND_SLICE bytes to the kernel, so that no client
 * holds the worker for long.
 */
#include "plane/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define CONN_SEND_SLICE (256u * 1024u)
#define CONN_SEND_PARTS 64
#define CONN_INPUT_MIN (16u * 1024u)
#define CONN_READ_CAP (512u * 1024u) /* bytes a read, for fairness */
#define CONN_KEEP_COPY (16u * 1024u) /* smaller leftovers are copied, larger ones moved */
#define CONN_SENT_PINS 1024u         /* that many pins that are sent may stay in the output */

struct conn *conn_new(int fd, uint32_t flags, const oort_transport *transport, uint64_t now_ms)
{
    struct conn *conn = calloc(1, sizeof *conn);

    if (conn == NULL)
        return NULL;
    conn->transport = transport;
    conn->fd = fd;
    conn->flags = flags;
    conn->protocol = 2;
    resp_parser_init(&conn->parser);
    conn->created_ms = now_ms;
    atomic_init(&conn->shown_flags, flags);
    atomic_init(&conn->shown_database, 0);
    atomic_init(&conn->shown_protocol, 2);
    atomic_init(&conn->last_command, -1);
    atomic_init(&conn->active_ms, now_ms);
    conn->adopt_mail = (struct conn_mail){.conn = conn, .kind = MAIL_ADOPT};
    conn->kill_mail = (struct conn_mail){.conn = conn, .kind = MAIL_KILL};
    conn->fetch_mail = (struct conn_mail){.conn = conn, .kind = MAIL_FETCHED};
    transport->open(conn);
    return conn;
}

void conn_shut(struct conn *conn)
{
    output_drop_pins(&conn->output, 0);
    output_free(&conn->output);
    output_drop_pins(&conn->behind, 0);
    output_free(&conn->behind);
    resp_parser_free(&conn->parser);
    free(conn->input.data);
    conn->input = (struct conn_input){0};
    conn->transport->close(conn);
    conn->fd = -1;
}

/* ---- input -------------------------------------------------------------- */

static bool input_resize(struct conn_input *input, uint64_t capacity)
{
    uint8_t *data = realloc(input->data, capacity);
    if (data == NULL)
        return false;
    input->data = data;
    input->capacity = capacity;
    return true;
}

uint64_t conn_input_room(struct conn *conn)
{
    struct conn_input *input = &conn->input;
    uint64_t used = input->end - input->start;
    uint64_t wanted = conn->in_progress ? conn->parser.wanted : 0;

    if (input->start > 0) {
        memmove(input->data, input->data + input->start, used);
        input->start = 0;
        input->end = used;
    }
    /* Doubling: bytes that are announced and never sent cost no more memory than those sent. */
    if (wanted > used)
        wanted = used;
    if (wanted < CONN_INPUT_MIN)
        wanted = CONN_INPUT_MIN;
    if (input->capacity - used < CONN_INPUT_MIN && !input_resize(input, used + wanted))
        return 0;
    uint64_t room = input->capacity - used;
    return room < CONN_READ_CAP ? room : CONN_READ_CAP;
}

bool conn_input_keep(struct conn *conn, const uint8_t *data, uint64_t size)
{
    struct conn_input *input = &conn->input;

    if (size > input->capacity && !input_resize(input, size))
        return false;
    memcpy(input->data, data, size);
    input->start = 0;
    input->end = size;
    return true;
}

void conn_input_consume(struct conn *conn, uint64_t size)
{
    struct conn_input *input = &conn->input;

    OORT_ASSERT(size <= input->end - input->start, "no more input is consumed than there is");
    input->start += size;
    if (input->start == input->end) {
        free(input->data);
        *input = (struct conn_input){0};
    }
}

/* ---- output ------------------------------------------------------------- */

uint64_t conn_unsent(const struct conn *conn)
{
    const struct oort_output *output = &conn->output;
    uint64_t bytes = output->size - conn->sent.data + output->pinned;

    if (conn->sent.pin < output->pin_count) {
        const struct output_pin *next = &output->pins[conn->sent.pin];
        bytes -= next->is_value ? next->bytes.size : conn->sent.pin_bytes;
    }
    return bytes + conn->behind.size + conn->behind.pinned;
}

bool conn_all_sent(const struct conn *conn)
{
    return conn->sent.data == conn->output.size && conn->sent.pin == conn->output.pin_count;
}

/* The next parts to send, at most CONN_SEND_SLICE bytes. */
static int next_parts(const struct oort_output *output, struct conn_position at,
                      struct iovec *parts, uint64_t *total)
{
    uint64_t room = CONN_SEND_SLICE;
    int count = 0;

    while (room > 0 && count < CONN_SEND_PARTS) {
        bool pinned = at.pin < output->pin_count;
        uint64_t stop = pinned ? output->pins[at.pin].offset : output->size;
        const uint8_t *data;
        uint64_t size;
        if (at.data < stop) {
            data = output->data + at.data;
            size = stop - at.data < room ? stop - at.data : room;
            at.data += size;
        } else if (pinned) {
            const struct pinned_bytes *bytes = &output->pins[at.pin].bytes;
            data = bytes->data + at.pin_bytes;
            size = bytes->size - at.pin_bytes;
            if (size > room) {
                size = room;
                at.pin_bytes += size;
            } else {
                at.pin++;
                at.pin_bytes = 0;
            }
        } else {
            break;
        }
        if (size > 0) {
            parts[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = size};
            room -= size;
        }
    }
    *total = CONN_SEND_SLICE - room;
    return count;
}

static void advance(struct oort_output *output, struct conn_position *at, uint64_t bytes)
{
    for (;;) {
        bool pinned = at->pin < output->pin_count;
        uint64_t stop = pinned ? output->pins[at->pin].offset : output->size;
        OORT_ASSERT(at->data <= stop && stop <= output->size, "the pins of an output are in order");
        uint64_t step = stop - at->data < bytes ? stop - at->data : bytes;
        at->data += step;
        bytes -= step;
        if (at->data < stop || !pinned) {
            OORT_ASSERT(bytes == 0, "no more is sent than there is");
            return;
        }
        struct output_pin *pin = &output->pins[at->pin];
        step = pin->bytes.size - at->pin_bytes < bytes ? pin->bytes.size - at->pin_bytes : bytes;
        at->pin_bytes += step;
        bytes -= step;
        if (at->pin_bytes < pin->bytes.size)
            return;
        output_release_pin(output, pin);
        at->pin++;
        at->pin_bytes = 0;
    }
}

int conn_send(struct conn *conn, struct oort_output *output, struct conn_position *position)
{
    struct iovec parts[CONN_SEND_PARTS];
    uint64_t total;
    int count = next_parts(output, *position, parts, &total);

    if (count == 0)
        return CONN_SEND_DONE;
    ssize_t sent;
    do
        sent = conn->transport->send(conn, parts, count);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? CONN_SEND_FULL
                                                                           : CONN_SEND_BROKEN;
    shown_add(&conn->bytes_out, (uint64_t)sent);
    advance(output, position, (uint64_t)sent);
    if ((uint64_t)sent < total)
        return CONN_SEND_FULL;
    if (position->data == output->size && position->pin == output->pin_count)
        return CONN_SEND_DONE;
    return CONN_SEND_MORE;
}

bool conn_output_keep(struct conn *conn, struct oort_output *output,
                      const struct conn_position *position)
{
    uint64_t left = output->size - position->data;

    OORT_ASSERT(conn_all_sent(conn),
                "a turn writes to the worker's output only if its own is empty");
    if (position->pin == output->pin_count && left <= CONN_KEEP_COPY) {
        output_append(&conn->output, output->data + position->data, left);
        output_drop_pins(output, 0);
        output->size = 0;
        return !conn->output.failed;
    }
    output_free(&conn->output);
    conn->output = *output;
    conn->sent = *position;
    *output = (struct oort_output){0};
    return true;
}

/* Close the gaps that sent bytes and sent pins leave, once a gap is worth moving the rest. */
static void output_compact(struct conn *conn)
{
    struct oort_output *output = &conn->output;
    uint64_t gap = conn->sent.data;
    uint32_t sent_pins = conn->sent.pin;

    if (sent_pins >= CONN_SENT_PINS && sent_pins >= output->pin_count - sent_pins) {
        output->pin_count -= sent_pins;
        memmove(output->pins, output->pins + sent_pins, output->pin_count * sizeof *output->pins);
        conn->sent.pin = 0;
    }
    if (gap < CONN_KEEP_COPY * 4 || gap < output->size - gap)
        return;
    memmove(output->data, output->data + gap, output->size - gap);
    output->size -= gap;
    conn->sent.data = 0;
    for (uint32_t i = conn->sent.pin; i < output->pin_count; i++)
        output->pins[i].offset -= gap;
    for (uint32_t i = 0; i < conn->sent.pin; i++)
        output->pins[i].offset = 0; /* sent */
}

int conn_flush(struct conn *conn)
{
    int result = conn_send(conn, &conn->output, &conn->sent);

    if (result == CONN_SEND_DONE) {
        output_drop_pins(&conn->output, 0);
        output_free(&conn->output);
        conn->output = (struct oort_output){0};
        conn->sent = (struct conn_position){0};
    } else if (result != CONN_SEND_BROKEN) {
        output_compact(conn);
    }
    return result;
}

void conn_output_behind(struct conn *conn)
{
    if (conn->behind.size > 0 || conn->behind.pin_count > 0)
        output_move(&conn->output, &conn->behind);
}
