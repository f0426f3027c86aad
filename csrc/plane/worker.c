/*
 * worker.c: what a worker holds between and during its rounds: the lists of its connections, its
 * mailbox, and its timers.  The rounds themselves are in plane.c.
 *
 * A connection is in the ready list while it has something to do.  It is parked while it waits for
 * the next sync or for a short time of a fixed length, and it is in the timers while it waits for
 * an event with a deadline.  A connection that waits costs nothing.
 *
 * The mailbox is the only way from another thread to a worker.  A mail counts in conn->mails until
 * it is taken, and a closed connection is freed when it has no mail and is not in the ready list.
 *
 * Time is monotonic.  What is due is looked for in every round, so that a moved clock takes effect
 * with the next round; one one-shot timer begins a round for whatever is due next.
 */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "base/assert.h"
#include "plane/plane.h"

#define TICK_MS 20u        /* paused connections, and writes while the store is behind */
#define LINGER_MS 1000u    /* for a client to read its last replies */
#define IDLE_TICK_MS 1000u /* between two searches for idle connections */
#define CONNS_FIRST 64u

static const uint32_t park_waits[PARK_COUNT] = {
    [PARK_SYNC] = CONN_WAIT_SYNC, [PARK_TICK] = CONN_WAIT_TICK, [PARK_LINGER] = CONN_WAIT_LINGER};
static const uint64_t park_ms[PARK_COUNT] = {[PARK_TICK] = TICK_MS, [PARK_LINGER] = LINGER_MS};

/* ---- lists -------------------------------------------------------------- */

void worker_ready(struct worker *worker, struct conn *conn)
{
    OORT_ASSERT(conn->worker == worker, "a connection belongs to one worker");
    if (conn->ready)
        return;
    conn->ready = true;
    conn->ready_next = NULL;
    if (worker->ready_first == NULL)
        worker->ready_first = conn;
    else
        worker->ready_last->ready_next = conn;
    worker->ready_last = conn;
}

void worker_park(struct worker *worker, struct conn *conn, enum park list)
{
    struct park_list *parked = &worker->parked[list];

    OORT_ASSERT(conn->parked == PARK_NONE && !conn->dead, "a live connection is parked once");
    conn->waits |= park_waits[list];
    conn->parked = (uint8_t)list;
    if (park_ms[list] > 0) {
        OORT_ASSERT(conn->timer == 0, "a connection has one deadline at a time");
        conn->due_ms = worker->now_ms + park_ms[list];
    }
    conn->park_next = NULL;
    conn->park_previous = parked->last;
    if (parked->last == NULL)
        parked->first = conn;
    else
        parked->last->park_next = conn;
    parked->last = conn;
    parked->count++;
    if (list == PARK_SYNC)
        shown_set(&worker->stats.waiting_sync, parked->count);
}

void worker_unpark(struct worker *worker, struct conn *conn)
{
    struct park_list *parked = &worker->parked[conn->parked];

    OORT_ASSERT(conn->parked != PARK_NONE && parked->count > 0 &&
                    (conn->waits & park_waits[conn->parked]) != 0,
                "a parked connection waits and is in its list");
    if (conn->park_previous != NULL)
        conn->park_previous->park_next = conn->park_next;
    else
        parked->first = conn->park_next;
    if (conn->park_next != NULL)
        conn->park_next->park_previous = conn->park_previous;
    else
        parked->last = conn->park_previous;
    parked->count--;
    conn->waits &= ~park_waits[conn->parked];
    if (conn->parked == PARK_SYNC)
        shown_set(&worker->stats.waiting_sync, parked->count);
    conn->parked = PARK_NONE;
}

static void free_if_unused(struct conn *conn)
{
    if (conn->dead && !conn->ready && atomic_load(&conn->mails) == 0)
        free(conn);
}

void worker_serve_ready(struct worker *worker)
{
    struct conn *conn = worker->ready_first;

    worker->ready_first = worker->ready_last = NULL;
    while (conn != NULL) {
        struct conn *next = conn->ready_next;
        conn->ready = false;
        if (conn->dead)
            free_if_unused(conn);
        else
            worker_serve(worker, conn);
        conn = next;
    }
}

static bool make_room(struct worker *worker)
{
    if (worker->conn_count < worker->conn_capacity)
        return true;
    uint32_t capacity = worker->conn_capacity == 0 ? CONNS_FIRST : worker->conn_capacity * 2;
    if (!timers_reserve(&worker->timers, capacity))
        return false;
    struct conn **conns = realloc(worker->conns, capacity * sizeof(struct conn *));
    if (conns == NULL)
        return false;
    worker->conns = conns;
    worker->conn_capacity = capacity;
    return true;
}

void worker_adopt(struct worker *worker, struct conn *conn)
{
    if (!make_room(worker)) {
        conn->dead = true;
        clients_gone(worker->plane, conn);
        conn_shut(conn);
        return;
    }
    conn->slot = worker->conn_count;
    worker->conns[worker->conn_count++] = conn;
    conn->used_ms = worker->now_ms;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) != 0)
        worker_close(worker, conn);
}

void worker_close(struct worker *worker, struct conn *conn)
{
    if (conn->dead)
        return;
    OORT_ASSERT(conn->slot < worker->conn_count && worker->conns[conn->slot] == conn,
                "a live connection is in its worker's table");
    conn->dead = true;
    if (conn->parked != PARK_NONE)
        worker_unpark(worker, conn);
    if (conn->event != NULL)
        event_wait_close(worker, conn);
    struct conn *moved = worker->conns[--worker->conn_count];
    worker->conns[conn->slot] = moved;
    moved->slot = conn->slot;
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    clients_gone(worker->plane, conn);
    conn_shut(conn);
    free_if_unused(conn);
}

void worker_want_writable(struct worker *worker, struct conn *conn, bool want)
{
    if (conn->want_writable == want)
        return;
    struct epoll_event event = {.data.ptr = conn};
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (want ? (uint32_t)EPOLLOUT : 0u);
    conn->want_writable = want;
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
}

/* ---- mailbox ------------------------------------------------------------ */

void worker_nudge(struct worker *worker)
{
    (void)eventfd_write(worker->wake_fd, 1);
}

void worker_post(struct worker *worker, struct conn_mail *mail)
{
    mail->next = NULL;
    (void)pthread_mutex_lock(&worker->mail_mutex);
    OORT_ASSERT(!worker->mail_closed, "nothing is posted to a worker that has closed");
    bool first = worker->mail_first == NULL;
    if (first)
        worker->mail_first = mail;
    else
        worker->mail_last->next = mail;
    worker->mail_last = mail;
    (void)pthread_mutex_unlock(&worker->mail_mutex);
    if (first)
        worker_nudge(worker);
}

void worker_mail_done(struct conn *conn)
{
    uint32_t before = atomic_fetch_sub(&conn->mails, 1);
    OORT_ASSERT(before > 0, "a connection counts the mails on their way to it");
    free_if_unused(conn);
}

/* Takes the mail; what belongs to a connection that has closed is dropped. */
static void take_mail(struct worker *worker, struct conn_mail *mail)
{
    struct conn *conn = mail->conn;

    switch ((enum conn_mail_kind)mail->kind) {
    case MAIL_ADOPT:
        if (!conn->dead)
            worker_adopt(worker, conn);
        break;
    case MAIL_KILL:
        worker_close(worker, conn);
        break;
    case MAIL_FETCHED:
        conn->waits &= ~(uint32_t)CONN_WAIT_FETCH;
        if (!conn->dead)
            worker_ready(worker, conn);
        break;
    case MAIL_REPLY:
        requests_take_reply(worker, conn, (struct reply_mail *)(void *)mail);
        break;
    case MAIL_WAKE:
        event_wait_wake(worker, conn, (struct reply_mail *)(void *)mail);
        break;
    case MAIL_MESSAGE:
        messages_take(worker, (struct message_mail *)(void *)mail);
        return;
    }
    worker_mail_done(conn);
}

static struct conn_mail *empty_mailbox(struct worker *worker, bool close)
{
    (void)pthread_mutex_lock(&worker->mail_mutex);
    struct conn_mail *mail = worker->mail_first;
    worker->mail_first = worker->mail_last = NULL;
    worker->mail_closed = close;
    (void)pthread_mutex_unlock(&worker->mail_mutex);
    return mail;
}

static void take_all(struct worker *worker, struct conn_mail *mail)
{
    while (mail != NULL) {
        struct conn_mail *next = mail->next;
        take_mail(worker, mail);
        mail = next;
    }
}

void worker_take_mails(struct worker *worker)
{
    take_all(worker, empty_mailbox(worker, false));
}

void worker_close_mailbox(struct worker *worker)
{
    take_all(worker, empty_mailbox(worker, true));
}

/* ---- time --------------------------------------------------------------- */

void worker_read_clock(struct worker *worker)
{
    const oort_clock *clock = worker->plane->clock;
    int64_t wall_us = clock->wall_us(clock->context);
    uint64_t now_ms = (uint64_t)(clock->monotonic_ns(clock->context) / 1000000);

    OORT_ASSERT(now_ms >= worker->now_ms, "monotonic time does not go back");
    worker->now_ms = now_ms;
    worker->wall_ms = (uint64_t)(wall_us / 1000);
    oort_session_set_clock(worker->session, wall_us);
}

static struct conn *first_due(const struct worker *worker, enum park list)
{
    struct conn *conn = worker->parked[list].first;
    return conn != NULL && conn->due_ms <= worker->now_ms ? conn : NULL;
}

static void close_idle(struct worker *worker)
{
    uint64_t idle_ms = (uint64_t)worker->settings->idle_seconds * 1000u;

    if (idle_ms == 0 || worker->now_ms < worker->idle_check_ms + IDLE_TICK_MS)
        return;
    worker->idle_check_ms = worker->now_ms;
    for (uint32_t i = worker->conn_count; i-- > 0;) {
        struct conn *conn = worker->conns[i];
        if (conn->waits == 0 && worker->now_ms - conn->used_ms >= idle_ms) {
            shown_add(&worker->stats.dropped_idle, 1);
            worker_close(worker, conn);
        }
    }
}

void worker_run_timers(struct worker *worker)
{
    struct conn *conn;

    while ((conn = first_due(worker, PARK_TICK)) != NULL) {
        worker_unpark(worker, conn);
        conn->pause_bytes = conn_unsent(conn) + CONN_PAUSE_BYTES;
        worker_ready(worker, conn);
    }
    while ((conn = first_due(worker, PARK_LINGER)) != NULL)
        worker_close(worker, conn);
    while ((conn = timers_first(&worker->timers)) != NULL && conn->due_ms <= worker->now_ms) {
        timers_clear(&worker->timers, conn);
        event_wait_time_out(worker, conn);
    }
    close_idle(worker);
}

static void sooner(uint64_t *due_ms, const struct conn *conn)
{
    if (conn != NULL && conn->due_ms < *due_ms)
        *due_ms = conn->due_ms;
}

/* An earlier time is set at once.  A later one waits for the timer's expiry, unless the clock is
 * past that already. */
void worker_arm_timer(struct worker *worker)
{
    uint64_t due_ms = UINT64_MAX;

    if (worker->settings->idle_seconds > 0 && worker->conn_count > 0)
        due_ms = worker->idle_check_ms + IDLE_TICK_MS;
    sooner(&due_ms, worker->parked[PARK_TICK].first);
    sooner(&due_ms, worker->parked[PARK_LINGER].first);
    sooner(&due_ms, timers_first(&worker->timers));
    if (due_ms == UINT64_MAX ||
        (worker->timer_due_ms > worker->now_ms && worker->timer_due_ms <= due_ms))
        return;
    uint64_t in_ms = due_ms > worker->now_ms ? due_ms - worker->now_ms : 1;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(in_ms / 1000), .tv_nsec = (long)(in_ms % 1000) * 1000000}};
    if (timerfd_settime(worker->timer_fd, 0, &when, NULL) == 0)
        worker->timer_due_ms = due_ms;
}
