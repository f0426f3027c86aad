/*
 * clients.c: the registry of connections: ids, adopting, killing, listing, and the ids of
 * connections that have closed.
 *
 * The end of a connection is reported only after the main loop has taken its last request.  So the
 * main loop never meets a connection again that it has been told to forget.
 */
#include "plane/plane.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"

#define CLIENTS_BUCKETS_FIRST 64u

int32_t clients_open(oort_dataplane *plane, oort_error *error)
{
    plane->bucket_count = CLIENTS_BUCKETS_FIRST;
    plane->buckets = calloc(plane->bucket_count, sizeof(struct client *));
    if (plane->buckets == NULL)
        return oort_fail(error, OORT_ERR_NOMEM, 0, "no memory for the connection registry");
    return OORT_OK;
}

void clients_close(oort_dataplane *plane)
{
    for (uint64_t i = 0; plane->buckets != NULL && i < plane->bucket_count; i++) {
        while (plane->buckets[i] != NULL) {
            struct client *client = plane->buckets[i];
            plane->buckets[i] = client->bucket_next;
            free(client->request);
            free(client);
        }
    }
    free(plane->buckets);
    plane->buckets = NULL;
}

struct client *clients_find(oort_dataplane *plane, uint64_t id)
{
    struct client *client = plane->buckets[id & (plane->bucket_count - 1)];
    while (client != NULL && client->id != id)
        client = client->bucket_next;
    return client;
}

/* If there is no memory to grow, searches only take longer. */
static void grow_buckets(oort_dataplane *plane)
{
    uint64_t count = plane->bucket_count * 2;
    struct client **buckets = calloc(count, sizeof(struct client *));
    if (buckets == NULL)
        return;
    for (uint64_t i = 0; i < plane->bucket_count; i++) {
        while (plane->buckets[i] != NULL) {
            struct client *client = plane->buckets[i];
            struct client **bucket = &buckets[client->id & (count - 1)];
            plane->buckets[i] = client->bucket_next;
            client->bucket_next = *bucket;
            *bucket = client;
        }
    }
    free(plane->buckets);
    plane->buckets = buckets;
    plane->bucket_count = count;
}

void plane_signal(oort_dataplane *plane)
{
    bool waiting = plane->request_first != NULL || plane->closed_first != NULL;
    if (waiting == plane->request_signalled)
        return;
    if (waiting)
        (void)eventfd_write(plane->request_fd, 1);
    else
        (void)eventfd_read(plane->request_fd, &(eventfd_t){0});
    plane->request_signalled = waiting;
}

void clients_report(oort_dataplane *plane, struct client *client)
{
    client->next = NULL;
    if (plane->closed_first == NULL)
        plane->closed_first = client;
    else
        plane->closed_last->next = client;
    plane->closed_last = client;
    plane_signal(plane);
}

void clients_release(oort_dataplane *plane, struct client *client)
{
    if (client->conn != NULL || client->request != NULL || !client->reported)
        return;
    struct client **place = &plane->buckets[client->id & (plane->bucket_count - 1)];
    while (*place != NULL && *place != client)
        place = &(*place)->bucket_next;
    OORT_ASSERT(*place == client && plane->client_count > 0,
                "a client is in the registry until it is released");
    *place = client->bucket_next;
    plane->client_count--;
    free(client);
}

void clients_gone(oort_dataplane *plane, struct conn *conn)
{
    struct client *client = conn->client;

    (void)pthread_mutex_lock(&plane->mutex);
    OORT_ASSERT(client->conn == conn && plane->live_count > 0, "a connection ends once");
    client->conn = NULL;
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        plane->live_first = client->next;
    if (client->next != NULL)
        client->next->previous = client->previous;
    else
        plane->live_last = client->previous;
    plane->live_count--;
    if (client->request == NULL || client->taken)
        clients_report(plane, client);
    (void)pthread_mutex_unlock(&plane->mutex);
}

uint64_t oort_connection_adopt(oort_dataplane *plane, uint32_t worker, int fd, uint32_t flags)
{
    struct client *client = worker < plane->worker_count ? calloc(1, sizeof *client) : NULL;
    uint64_t now_ms = (uint64_t)(plane->clock->wall_us(plane->clock->context) / 1000);
    struct conn *conn = client == NULL ? NULL : conn_new(fd, flags, plane->transport, now_ms);

    if (conn == NULL) {
        free(client);
        (void)close(fd);
        return 0;
    }
    conn->worker = &plane->workers[worker];
    conn->client = client;
    client->conn = conn;
    (void)pthread_mutex_lock(&plane->mutex);
    uint64_t id = ++plane->last_id;
    client->id = conn->id = id;
    if (plane->client_count >= plane->bucket_count)
        grow_buckets(plane);
    struct client **bucket = &plane->buckets[id & (plane->bucket_count - 1)];
    client->bucket_next = *bucket;
    *bucket = client;
    plane->client_count++;
    client->previous = plane->live_last;
    if (plane->live_last != NULL)
        plane->live_last->next = client;
    else
        plane->live_first = client;
    plane->live_last = client;
    plane->live_count++;
    atomic_fetch_add(&conn->mails, 1);
    worker_post(conn->worker, &conn->adopt_mail);
    (void)pthread_mutex_unlock(&plane->mutex);
    return id;
}

void clients_kill(struct conn *conn)
{
    if (conn->killed)
        return;
    conn->killed = true;
    atomic_fetch_add(&conn->mails, 1);
    worker_post(conn->worker, &conn->kill_mail);
}

int32_t oort_connection_kill(oort_dataplane *plane, uint64_t connection)
{
    (void)pthread_mutex_lock(&plane->mutex);
    struct client *client = clients_find(plane, connection);
    struct conn *conn = client == NULL ? NULL : client->conn;
    if (conn != NULL)
        clients_kill(conn);
    (void)pthread_mutex_unlock(&plane->mutex);
    return conn != NULL;
}

static void describe(oort_dataplane *plane, struct conn *conn, oort_connection_info *out)
{
    *out = (oort_connection_info){
        .id = conn->id,
        .fd = conn->fd,
        .worker = (uint32_t)(conn->worker - plane->workers),
        .flags = atomic_load_explicit(&conn->shown_flags, memory_order_relaxed),
        .database = atomic_load_explicit(&conn->shown_database, memory_order_relaxed),
        .protocol = atomic_load_explicit(&conn->shown_protocol, memory_order_relaxed),
        .created_ms = conn->created_ms,
        .active_ms = shown_get(&conn->active_ms),
        .query_bytes = shown_get(&conn->query_bytes),
        .query_free = shown_get(&conn->query_free),
        .output_bytes = shown_get(&conn->output_bytes),
        .commands = shown_get(&conn->commands),
        .bytes_in = shown_get(&conn->bytes_in),
        .bytes_out = shown_get(&conn->bytes_out),
        .last_command = atomic_load_explicit(&conn->last_command, memory_order_relaxed),
    };
}

uint64_t oort_connection_list(oort_dataplane *plane, oort_connection_info *out, uint64_t capacity)
{
    uint64_t count = 0;

    (void)pthread_mutex_lock(&plane->mutex);
    for (struct client *client = plane->live_first; client != NULL; client = client->next, count++)
        if (count < capacity)
            describe(plane, client->conn, &out[count]);
    (void)pthread_mutex_unlock(&plane->mutex);
    return count;
}

uint64_t oort_connection_closed(oort_dataplane *plane, uint64_t *out, uint64_t capacity)
{
    uint64_t count = 0;

    (void)pthread_mutex_lock(&plane->mutex);
    while (count < capacity && plane->closed_first != NULL) {
        struct client *client = plane->closed_first;
        plane->closed_first = client->next;
        out[count++] = client->id;
        client->reported = true;
        clients_release(plane, client);
    }
    plane_signal(plane);
    (void)pthread_mutex_unlock(&plane->mutex);
    return count;
}
