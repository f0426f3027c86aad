/*
 * requests.c: commands that Python executes: parsed arguments on their way to the main loop,
 * replies on their way back.
 *
 * A connection has at most one request out at a time and executes nothing meanwhile.  A request
 * outlives its connection: its arguments are valid until it is answered.
 */
#include "plane/plane.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

bool requests_post(oort_dataplane *plane, struct conn *conn, const oort_bytes *argv, uint32_t argc,
                   int32_t command)
{
    uint64_t bytes = sizeof(struct request) + (uint64_t)argc * sizeof(oort_bytes);
    for (uint32_t i = 0; i < argc; i++)
        bytes += argv[i].size;
    struct request *request = malloc(bytes);
    if (request == NULL)
        return false;
    uint8_t *data = (uint8_t *)(request->argv + argc);
    for (uint32_t i = 0; i < argc; i++) {
        memcpy(data, argv[i].data, argv[i].size);
        request->argv[i] = (oort_bytes){.data = data, .size = argv[i].size};
        data += argv[i].size;
    }
    request->next = NULL;
    request->request = (oort_request){
        .connection = conn->id,
        .argv = request->argv,
        .argc = argc,
        .command = command,
        .flags = conn->flags,
        .database = conn->database,
        .protocol = conn->protocol,
    };
    (void)pthread_mutex_lock(&plane->mutex);
    OORT_ASSERT(conn->client->request == NULL, "a connection has one request out at a time");
    conn->client->request = request;
    conn->client->taken = false;
    if (plane->request_first == NULL)
        plane->request_first = request;
    else
        plane->request_last->next = request;
    plane->request_last = request;
    plane_signal(plane);
    (void)pthread_mutex_unlock(&plane->mutex);
    return true;
}

int oort_request_fd(oort_dataplane *plane)
{
    return plane->request_fd;
}

int32_t oort_request_next(oort_dataplane *plane, oort_request *out)
{
    (void)pthread_mutex_lock(&plane->mutex);
    struct request *request = plane->request_first;
    if (request != NULL) {
        plane->request_first = request->next;
        *out = request->request;
        struct client *client = clients_find(plane, out->connection);
        OORT_ASSERT(client != NULL && client->request == request && !client->taken,
                    "a request that is queued belongs to its client and is taken once");
        client->taken = true;
        if (client->conn == NULL)
            clients_report(plane, client);
        plane_signal(plane);
    }
    (void)pthread_mutex_unlock(&plane->mutex);
    return request != NULL;
}

bool requests_reply_valid(const oort_reply *reply)
{
    return ((reply->changes & OORT_CHANGE_DATABASE) == 0 || reply->database < OORT_DATABASES) &&
           ((reply->changes & OORT_CHANGE_PROTOCOL) == 0 || reply->protocol == 2 ||
            reply->protocol == 3) &&
           ((reply->changes & OORT_CHANGE_WAIT) == 0 || reply->wait != 0);
}

struct reply_mail *requests_reply_mail(const oort_reply *reply, enum conn_mail_kind kind)
{
    struct reply_mail *mail = malloc(sizeof *mail + reply->size);
    if (mail == NULL)
        return NULL;
    mail->mail = (struct conn_mail){.kind = (uint8_t)kind};
    mail->reply = *reply;
    mail->reply.data = mail->data;
    if (reply->size > 0)
        memcpy(mail->data, reply->data, reply->size);
    return mail;
}

int32_t oort_request_reply(oort_dataplane *plane, const oort_reply *reply)
{
    if (!requests_reply_valid(reply))
        return OORT_ERR_ARGUMENT;
    struct reply_mail *mail = requests_reply_mail(reply, MAIL_REPLY);
    int32_t status = OORT_MISSING;
    (void)pthread_mutex_lock(&plane->mutex);
    struct client *client = clients_find(plane, reply->connection);
    if (client != NULL && (client->request == NULL || !client->taken)) {
        status = OORT_ERR_ARGUMENT;
    } else if (client != NULL) {
        struct conn *conn = client->conn;
        free(client->request);
        client->request = NULL;
        if (conn == NULL) {
            clients_release(plane, client);
        } else if (mail == NULL) {
            /* Later replies would be taken for this one, so the connection must end. */
            status = OORT_ERR_NOMEM;
            clients_kill(conn);
        } else {
            status = OORT_OK;
            mail->mail.conn = conn;
            if (reply->changes & OORT_CHANGE_WAIT)
                event_wait_announce(client, reply->wait);
            atomic_fetch_add(&conn->mails, 1);
            worker_post(conn->worker, &mail->mail);
            mail = NULL;
        }
    }
    (void)pthread_mutex_unlock(&plane->mutex);
    free(mail);
    return status;
}

void requests_take_reply(struct worker *worker, struct conn *conn, struct reply_mail *mail)
{
    if (conn->dead) {
        free(mail);
        return;
    }
    OORT_ASSERT((conn->waits & CONN_WAIT_REPLY) != 0, "a reply comes to a connection that waits");
    conn->waits &= ~(uint32_t)CONN_WAIT_REPLY;
    if (mail->reply.changes & OORT_CHANGE_WAIT) {
        event_wait_begin_reply(worker, conn, mail);
    } else {
        worker_reply(worker, conn, &mail->reply);
        free(mail);
    }
}

void worker_reply(struct worker *worker, struct conn *conn, const oort_reply *reply)
{
    if (reply->changes & OORT_CHANGE_DATABASE) {
        conn->database = reply->database;
        atomic_store_explicit(&conn->shown_database, reply->database, memory_order_relaxed);
    }
    if (reply->changes & OORT_CHANGE_PROTOCOL) {
        conn->protocol = reply->protocol;
        atomic_store_explicit(&conn->shown_protocol, reply->protocol, memory_order_relaxed);
    }
    if (reply->changes & OORT_CHANGE_FLAGS) {
        conn->flags = reply->flags;
        atomic_store_explicit(&conn->shown_flags, reply->flags, memory_order_relaxed);
    }
    if (reply->changes & OORT_CHANGE_CLOSE)
        conn->closing = true;
    if (reply->size > 0 && reply->data[0] == '-' && conn->request_command >= 0) {
        shown_add(&worker->commands[conn->request_command].failed, 1);
        worker_count_error(worker, reply->data, reply->size);
    }
    output_append(&conn->output, reply->data, reply->size);
    if (!conn->closing)
        conn_output_behind(conn);
    conn->used_ms = worker->now_ms;
    worker_ready(worker, conn);
}
