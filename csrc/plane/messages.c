/*
 * messages.c: messages that answer no request.  The public contract is in oort.h, under
 * "messages".
 *
 * A message is a shared buffer with a count of references: one for its maker until the maker
 * releases it, one for each mail that carries it, one for each output that has not sent it.
 * Sending takes one mail for each worker, however many connections the message goes to.  A small
 * message is copied into the output, because a reference takes memory as well and makes the system
 * call that sends it longer.
 *
 * A worker takes its mails between turns, so a message never splits a reply.  A command that sends
 * a message to its own connection posts the message, too.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "plane/plane.h"

#define MESSAGE_COPY_BYTES 256u

struct oort_message {
    oort_dataplane *plane;
    _Atomic uint64_t references;
    uint64_t size;
    uint8_t data[];
};

oort_message *oort_message_new(oort_dataplane *plane, const uint8_t *data, uint64_t size)
{
    oort_message *message = size > SIZE_MAX - sizeof *message ? NULL
                                                              : malloc(sizeof *message + size);
    if (message == NULL)
        return NULL;
    message->plane = plane;
    atomic_init(&message->references, 1);
    message->size = size;
    if (size > 0)
        memcpy(message->data, data, size);
    atomic_fetch_add_explicit(&plane->message_bytes, size, memory_order_relaxed);
    return message;
}

static void retain(oort_message *message)
{
    uint64_t before = atomic_fetch_add_explicit(&message->references, 1, memory_order_relaxed);
    OORT_ASSERT(before > 0, "a message that is referred to exists");
}

void oort_message_release(oort_message *message)
{
    uint64_t before = atomic_fetch_sub_explicit(&message->references, 1, memory_order_acq_rel);
    OORT_ASSERT(before > 0, "a message is released once for each reference");
    if (before > 1)
        return;
    atomic_fetch_sub_explicit(&message->plane->message_bytes, message->size, memory_order_relaxed);
    free(message);
}

uint64_t oort_dataplane_message_bytes(oort_dataplane *plane)
{
    return atomic_load_explicit(&plane->message_bytes, memory_order_relaxed);
}

/* ---- sending ------------------------------------------------------------ */

static struct conn *find_conn(oort_dataplane *plane, uint64_t id)
{
    struct client *client = clients_find(plane, id);
    return client == NULL ? NULL : client->conn;
}

/* A mail for each worker that has one of the connections.  Returns how many connections there are,
 * or OORT_ERR_NOMEM.  The caller holds the plane's mutex. */
static int64_t make_mails(oort_dataplane *plane, const uint64_t *connections, uint64_t count,
                          struct message_mail **mails)
{
    uint64_t counts[PLANE_WORKERS_MAX] = {0};
    int64_t total = 0;

    for (uint64_t i = 0; i < count; i++) {
        const struct conn *conn = find_conn(plane, connections[i]);
        if (conn != NULL) {
            counts[conn->worker - plane->workers]++;
            total++;
        }
    }
    for (uint32_t i = 0; i < plane->worker_count; i++) {
        if (counts[i] == 0)
            continue;
        mails[i] = malloc(sizeof *mails[i] + counts[i] * sizeof(struct conn *));
        if (mails[i] == NULL)
            return OORT_ERR_NOMEM;
        mails[i]->mail = (struct conn_mail){.kind = MAIL_MESSAGE};
        mails[i]->count = 0;
    }
    return total;
}

int64_t oort_connection_send(oort_dataplane *plane, const uint64_t *connections, uint64_t count,
                             oort_message *message)
{
    struct message_mail *mails[PLANE_WORKERS_MAX] = {NULL};

    OORT_ASSERT(message->plane == plane, "a message stays in its plane");
    (void)pthread_mutex_lock(&plane->mutex);
    int64_t total = make_mails(plane, connections, count, mails);
    for (uint64_t i = 0; total > 0 && i < count; i++) {
        struct conn *conn = find_conn(plane, connections[i]);
        if (conn == NULL)
            continue;
        struct message_mail *mail = mails[conn->worker - plane->workers];
        mail->conns[mail->count++] = conn;
        atomic_fetch_add(&conn->mails, 1);
    }
    for (uint32_t i = 0; i < plane->worker_count; i++) {
        if (mails[i] == NULL)
            continue;
        if (total < 0) {
            free(mails[i]);
            continue;
        }
        retain(message);
        mails[i]->message = message;
        worker_post(&plane->workers[i], &mails[i]->mail);
    }
    (void)pthread_mutex_unlock(&plane->mutex);
    return total;
}

/* ---- arriving ----------------------------------------------------------- */

static void release_pin(void *owner, void *pin)
{
    (void)pin;
    oort_message_release(owner);
}

static void append(struct oort_output *output, oort_message *message)
{
    if (message->size <= MESSAGE_COPY_BYTES) {
        output_append(output, message->data, message->size);
        return;
    }
    const struct pinned_bytes bytes = {
        .data = message->data, .size = message->size, .release = release_pin, .owner = message};
    retain(message);
    if (!output_append_pinned(output, &bytes, false))
        oort_message_release(message);
}

static void deliver(struct worker *worker, struct conn *conn, oort_message *message)
{
    bool waits_for_reply = (conn->waits & CONN_WAIT_REPLY) != 0;

    if (conn->dead || conn->closing)
        return;
    append(waits_for_reply ? &conn->behind : &conn->output, message);
    worker_ready(worker, conn);
}

void messages_take(struct worker *worker, struct message_mail *mail)
{
    for (uint64_t i = 0; i < mail->count; i++) {
        deliver(worker, mail->conns[i], mail->message);
        worker_mail_done(mail->conns[i]);
    }
    oort_message_release(mail->message);
    free(mail);
}
