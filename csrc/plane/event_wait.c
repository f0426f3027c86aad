/*
 * event_wait.c: connections that wait for an event before their command is answered.  The public
 * contract is in oort.h, under "waits".
 *
 * Exactly one side ends a wait, because it must claim the wait's number first: the caller of
 * oort_connection_wake on any thread, or the worker when the time passes or the client closes its
 * sending side.  The number stands in the registry's entry, which both sides reach.  After a
 * waker's claim the worker leaves the wait alone until the waker's mail arrives.
 *
 * A wait does not depend on Python.  A command that blocks in C announces its wait and begins it
 * with an `end` function of its own.  A reply from Python that waits ends in end_reply.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "plane/plane.h"

void event_wait_announce(struct client *client, uint64_t number)
{
    OORT_ASSERT(number != 0, "the number of a wait is not 0");
    uint64_t before = atomic_exchange(&client->wait, number);
    OORT_ASSERT(before == 0, "a connection waits for one event at a time");
}

/* true: the caller, and no other thread, ends the wait. */
static bool claim(struct client *client, uint64_t number)
{
    return atomic_compare_exchange_strong(&client->wait, &number, 0);
}

void event_wait_begin(struct worker *worker, struct conn *conn, struct event_wait *wait)
{
    OORT_ASSERT(conn->event == NULL && (conn->waits & CONN_WAIT_EVENT) == 0,
                "a connection waits for one event at a time");
    conn->event = wait;
    conn->waits |= CONN_WAIT_EVENT;
    if (wait->due_ms != UINT64_MAX)
        timers_set(&worker->timers, conn, wait->due_ms);
    worker_ready(worker, conn);
}

static void end(struct worker *worker, struct conn *conn, enum event_end how,
                const oort_reply *reply)
{
    struct event_wait *wait = conn->event;

    conn->event = NULL;
    conn->waits &= ~(uint32_t)CONN_WAIT_EVENT;
    if (conn->timer != 0)
        timers_clear(&worker->timers, conn);
    wait->end(worker, conn, wait, how, reply);
}

void event_wait_time_out(struct worker *worker, struct conn *conn)
{
    OORT_ASSERT(conn->event != NULL, "a connection whose time passes waits");
    if (claim(conn->client, conn->event->number))
        end(worker, conn, EVENT_TIMED_OUT, NULL);
}

void event_wait_wake(struct worker *worker, struct conn *conn, struct reply_mail *mail)
{
    if (!conn->dead) {
        OORT_ASSERT(conn->event != NULL && conn->event->number == mail->reply.wait,
                    "only the waker that claimed a wait ends it");
        end(worker, conn, EVENT_WOKEN, &mail->reply);
    }
    free(mail);
}

void event_wait_close(struct worker *worker, struct conn *conn)
{
    atomic_store(&conn->client->wait, 0);
    end(worker, conn, EVENT_CLOSED, NULL);
}

/* ---- a reply that waits ------------------------------------------------- */

static void end_reply(struct worker *worker, struct conn *conn, struct event_wait *wait,
                      enum event_end how, const oort_reply *reply)
{
    struct reply_mail *mail =
        (struct reply_mail *)(void *)((char *)wait - offsetof(struct reply_mail, wait));

    if (how == EVENT_WOKEN)
        worker_reply(worker, conn, reply);
    else if (how == EVENT_TIMED_OUT)
        worker_reply(worker, conn, &mail->reply);
    free(mail);
}

void event_wait_begin_reply(struct worker *worker, struct conn *conn, struct reply_mail *mail)
{
    const oort_reply *reply = &mail->reply;

    mail->wait = (struct event_wait){
        .number = reply->wait,
        .due_ms = reply->wait_ms < 0 ? UINT64_MAX : worker->now_ms + (uint64_t)reply->wait_ms,
        .end = end_reply,
    };
    /* The command's reply is no longer at hand, so messages need not wait for it. */
    conn_output_behind(conn);
    event_wait_begin(worker, conn, &mail->wait);
}

int32_t oort_connection_wake(oort_dataplane *plane, const oort_reply *reply)
{
    if (!requests_reply_valid(reply) || (reply->changes & OORT_CHANGE_WAIT) != 0 ||
        reply->wait == 0)
        return OORT_ERR_ARGUMENT;
    struct reply_mail *mail = requests_reply_mail(reply, MAIL_WAKE);
    if (mail == NULL)
        return OORT_ERR_NOMEM;
    int32_t status = OORT_MISSING;
    (void)pthread_mutex_lock(&plane->mutex);
    struct client *client = clients_find(plane, reply->connection);
    if (client != NULL && client->conn != NULL && claim(client, reply->wait)) {
        struct conn *conn = client->conn;
        status = OORT_OK;
        mail->mail.conn = conn;
        atomic_fetch_add(&conn->mails, 1);
        worker_post(conn->worker, &mail->mail);
        mail = NULL;
    }
    (void)pthread_mutex_unlock(&plane->mutex);
    free(mail);
    return status;
}
