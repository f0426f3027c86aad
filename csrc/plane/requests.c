/*
 * requests.c: cold commands: parsed arguments on their way to the main loop,
 * replies on their way back.
 *
 * A connection has at most one request out at a time and executes nothing
 * meanwhile.  A request outlives its connection: its arguments stay until it is answered.
 */
#include "plane/plane.h"

#include <stdlib.h>
#include <string.h>

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
        client->taken = true;
        if (client->conn == NULL)
            clients_report(plane, client);
        plane_signal(plane);
    }
    (void)pthread_mutex_unlock(&plane->mutex);
    return request != NULL;
}

int32_t oort_request_reply(oort_dataplane *plane, const oort_reply *reply)
{
    if (((reply->changes & OORT_CHANGE_DATABASE) != 0 && reply->database >= OORT_DATABASES) ||
        ((reply->changes & OORT_CHANGE_PROTOCOL) != 0 && reply->protocol != 2 &&
         reply->protocol != 3))
        return OORT_ERR_ARGUMENT;
    struct reply_mail *mail = malloc(sizeof *mail + reply->size);
    if (mail != NULL) {
        mail->reply = *reply;
        mail->reply.data = mail->data;
        if (reply->size > 0)
            memcpy(mail->data, reply->data, reply->size);
    }
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
            /* A connection that misses a reply is out of step for good. */
            status = OORT_ERR_NOMEM;
            if (!conn->killed) {
                conn->killed = true;
                atomic_fetch_add(&conn->mails, 1);
                worker_post(conn->worker, &conn->kill_mail);
            }
        } else {
            status = OORT_OK;
            mail->mail = (struct conn_mail){.conn = conn, .kind = MAIL_REPLY};
            atomic_fetch_add(&conn->mails, 1);
            worker_post(conn->worker, &mail->mail);
            mail = NULL;
        }
    }
    (void)pthread_mutex_unlock(&plane->mutex);
    free(mail);
    return status;
}
