/*
 * plane.c: the plane and its workers: rounds of events, mails and ticks.
 *
 * A worker is one epoll set and one thread that drives it.  Sockets are edge
 * triggered: a round notes what became readable or writable, and the ready list holds
 * whoever has something to do; so a connection that waits costs nothing, and no
 * epoll_ctl is needed but for the rare EPOLLOUT.  The wake-up eventfd is edge triggered
 * as well and never read.  A round leaves work behind only on the ready list; worker_poll then
 * signals its own eventfd, so that whoever watches the epoll descriptor comes back.
 *
 * The clock is read once a round.  One one-shot timer serves all that waits for time.
 */
#include "plane/plane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/error.h"

#define ROUND_EVENTS 256
#define TICK_MS 20u /* paused connections, and writes while the store is behind */
#define LINGER_TICK_MS 250u
#define IDLE_TICK_MS 1000u
#define STOP_MS 1000u /* for flushing when stopping */
#define STOP_STEP_MS 20

/* ---- what the other files call ------------------------------------------- */

void worker_post(struct worker *worker, struct conn_mail *mail)
{
    mail->next = NULL;
    (void)pthread_mutex_lock(&worker->mail_mutex);
    bool first = worker->mail_first == NULL;
    if (first)
        worker->mail_first = mail;
    else
        worker->mail_last->next = mail;
    worker->mail_last = mail;
    (void)pthread_mutex_unlock(&worker->mail_mutex);
    if (first)
        (void)eventfd_write(worker->wake_fd, 1);
}

void worker_ready(struct worker *worker, struct conn *conn)
{
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

static const uint32_t park_waits[PARK_COUNT] = {
    [PARK_SYNC] = CONN_WAIT_SYNC, [PARK_TICK] = CONN_WAIT_TICK, [PARK_LINGER] = CONN_WAIT_LINGER};

void worker_park(struct worker *worker, struct conn *conn, enum park list)
{
    struct park_list *parked = &worker->parked[list];

    conn->waits |= park_waits[list];
    conn->parked = (uint8_t)list;
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

static void release(struct conn *conn)
{
    if (conn->dead && !conn->ready && atomic_load(&conn->mails) == 0)
        free(conn);
}

void worker_close(struct worker *worker, struct conn *conn)
{
    if (conn->dead)
        return;
    conn->dead = true;
    if (conn->parked != PARK_NONE)
        worker_unpark(worker, conn);
    struct conn *moved = worker->conns[--worker->conn_count];
    worker->conns[conn->slot] = moved;
    moved->slot = conn->slot;
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    clients_gone(worker->plane, conn);
    conn_shut(conn);
    release(conn);
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

/* ---- a round ------------------------------------------------------------ */

static void note_event(struct worker *worker, const struct epoll_event *event)
{
    struct conn *conn = event->data.ptr;
    uint32_t bits = event->events;

    if (bits & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->readable = true;
    if (bits & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->hangup = true;
    if (bits & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        conn->writable = true;
    worker_ready(worker, conn);
}

static void adopt(struct worker *worker, struct conn *conn)
{
    if (worker->conn_count == worker->conn_capacity) {
        uint32_t capacity = worker->conn_capacity == 0 ? 64 : worker->conn_capacity * 2;
        struct conn **conns = realloc(worker->conns, capacity * sizeof(struct conn *));
        if (conns == NULL) {
            conn->dead = true;
            clients_gone(worker->plane, conn);
            conn_shut(conn);
            return;
        }
        worker->conns = conns;
        worker->conn_capacity = capacity;
    }
    conn->slot = worker->conn_count;
    worker->conns[worker->conn_count++] = conn;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) != 0)
        worker_close(worker, conn);
}

static void take_reply(struct worker *worker, struct conn *conn, const oort_reply *reply)
{
    conn->waits &= ~(uint32_t)CONN_WAIT_REPLY;
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
    if (reply->size > 0 && reply->data[0] == '-' && conn->cold_command >= 0) {
        shown_add(&worker->commands[conn->cold_command].failed, 1);
        worker_count_error(worker, reply->data, reply->size);
    }
    output_append(&conn->output, reply->data, reply->size);
    if (conn->output.failed)
        worker_close(worker, conn);
    else
        worker_ready(worker, conn);
}

static void take_mails(struct worker *worker)
{
    (void)pthread_mutex_lock(&worker->mail_mutex);
    struct conn_mail *mail = worker->mail_first;
    worker->mail_first = worker->mail_last = NULL;
    (void)pthread_mutex_unlock(&worker->mail_mutex);
    while (mail != NULL) {
        struct conn_mail *next = mail->next;
        struct conn *conn = mail->conn;
        uint8_t kind = mail->kind;
        if (!conn->dead && kind == MAIL_ADOPT)
            adopt(worker, conn);
        else if (!conn->dead && kind == MAIL_REPLY)
            take_reply(worker, conn, &((struct reply_mail *)(void *)mail)->reply);
        else if (!conn->dead && kind == MAIL_FETCHED) {
            conn->waits &= ~(uint32_t)CONN_WAIT_FETCH;
            worker_ready(worker, conn);
        } else if (!conn->dead && kind == MAIL_KILL) {
            worker_close(worker, conn);
        }
        if (kind == MAIL_REPLY)
            free(mail);
        atomic_fetch_sub(&conn->mails, 1);
        release(conn);
        mail = next;
    }
}

static void tick(struct worker *worker)
{
    while (worker->parked[PARK_TICK].first != NULL) {
        struct conn *conn = worker->parked[PARK_TICK].first;
        worker_unpark(worker, conn);
        conn->pause_bytes = conn_unsent(conn) + 1024u * 1024u;
        worker_ready(worker, conn);
    }
    for (struct conn *conn = worker->parked[PARK_LINGER].first, *next; conn != NULL; conn = next) {
        next = conn->park_next;
        if (conn->linger_until_ms <= worker->now_ms)
            worker_close(worker, conn);
    }
    if (worker->limits.idle_seconds == 0 || worker->now_ms < worker->idle_check_ms + IDLE_TICK_MS)
        return;
    worker->idle_check_ms = worker->now_ms;
    uint64_t idle_ms = (uint64_t)worker->limits.idle_seconds * 1000u;
    for (uint32_t i = worker->conn_count; i-- > 0;) {
        struct conn *conn = worker->conns[i];
        uint64_t active_ms = shown_get(&conn->active_ms);
        if (conn->waits == 0 && active_ms < worker->now_ms &&
            worker->now_ms - active_ms >= idle_ms) {
            shown_add(&worker->stats.dropped_idle, 1);
            worker_close(worker, conn);
        }
    }
}

/* Sooner is set at once; later is left to the next expiry. */
static void arm_timer(struct worker *worker)
{
    uint32_t wanted = 0;

    if (worker->parked[PARK_TICK].count > 0)
        wanted = TICK_MS;
    else if (worker->parked[PARK_LINGER].count > 0)
        wanted = LINGER_TICK_MS;
    else if (worker->limits.idle_seconds > 0 && worker->conn_count > 0)
        wanted = IDLE_TICK_MS;
    if (wanted == 0 || (worker->timer_ms != 0 && worker->timer_ms <= wanted))
        return;
    struct itimerspec when = {
        .it_value = {.tv_sec = wanted / 1000, .tv_nsec = (long)(wanted % 1000) * 1000000}};
    if (timerfd_settime(worker->timer_fd, 0, &when, NULL) == 0)
        worker->timer_ms = wanted;
}

static void load_limits(struct worker *worker)
{
    oort_dataplane *plane = worker->plane;
    worker->limits = (oort_limits){
        .query_bytes = atomic_load_explicit(&plane->query_bytes, memory_order_relaxed),
        .output_bytes = atomic_load_explicit(&plane->output_bytes, memory_order_relaxed),
        .value_cap = atomic_load_explicit(&plane->value_cap, memory_order_relaxed),
        .idle_seconds = atomic_load_explicit(&plane->idle_seconds, memory_order_relaxed),
        .no_password = atomic_load_explicit(&plane->no_password, memory_order_relaxed),
    };
}

static void serve_ready(struct worker *worker)
{
    struct conn *conn = worker->ready_first;

    worker->ready_first = worker->ready_last = NULL;
    while (conn != NULL) {
        struct conn *next = conn->ready_next;
        conn->ready = false;
        if (conn->dead)
            release(conn);
        else
            worker_serve(worker, conn);
        conn = next;
    }
}

static int32_t worker_round(struct worker *worker, int timeout_ms, oort_error *error)
{
    struct epoll_event events[ROUND_EVENTS];
    bool woken = false, ticked = false;
    bool may_wait = timeout_ms != 0 && !worker->draining;

    if (worker->ready_first != NULL)
        timeout_ms = 0;
    else if (worker->commit.ticket != 0)
        timeout_ms = may_wait ? worker->commit.wait_ms : 0;
    int count = epoll_wait(worker->epoll_fd, events, ROUND_EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR)
        return oort_fail(error, OORT_ERR_IO, errno, "epoll_wait: %s", strerror(errno));
    (void)atomic_fetch_add_explicit(&worker->rounds, 1, memory_order_relaxed);
    oort_session_set_clock(worker->session, 0);
    worker->now_ms = (uint64_t)oort_session_now_ms(worker->session);
    worker->behind = oort_store_behind(worker->store) != 0;
    load_limits(worker);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &worker->wake_fd)
            woken = true;
        else if (events[i].data.ptr == &worker->timer_fd)
            ticked = true;
        else
            note_event(worker, &events[i]);
    }
    if (woken) {
        take_mails(worker);
        worker_take_sync(worker);
    }
    if (ticked) {
        worker->timer_ms = 0;
        tick(worker);
    }
    serve_ready(worker);
    if (worker->commit.ticket != 0)
        worker_commit(worker, count <= 0, may_wait);
    arm_timer(worker);
    return OORT_OK;
}

/* Stopping: what has been answered goes out, within a bounded time. */
static int32_t drain(struct worker *worker, oort_error *error)
{
    worker->draining = true;
    oort_session_set_clock(worker->session, 0);
    uint64_t until_ms = (uint64_t)oort_session_now_ms(worker->session) + STOP_MS;
    int32_t status;
    bool waiting;
    do {
        status = worker_round(worker, STOP_STEP_MS, error);
        waiting = false;
        for (uint32_t i = 0; i < worker->conn_count && !waiting; i++)
            waiting = !conn_all_sent(worker->conns[i]);
    } while (status == OORT_OK && waiting && worker->now_ms < until_ms);
    worker->draining = false;
    return status;
}

int32_t oort_worker_run(oort_dataplane *plane, uint32_t worker, oort_error *error)
{
    if (worker >= plane->worker_count)
        return oort_fail(error, OORT_ERR_ARGUMENT, 0, "no worker %u", worker);
    int32_t status = OORT_OK;
    char name[16]; /* as `top -H` shows it */
    (void)snprintf(name, sizeof name, "worker-%u", worker % 1000u);
    (void)pthread_setname_np(pthread_self(), name);
    atomic_store(&plane->workers[worker].thread, (int32_t)syscall(SYS_gettid));
    while (status == OORT_OK && !atomic_load_explicit(&plane->stopping, memory_order_relaxed))
        status = worker_round(&plane->workers[worker], -1, error);
    return status == OORT_OK ? drain(&plane->workers[worker], error) : status;
}

int32_t oort_worker_poll(oort_dataplane *plane, uint32_t worker, int32_t timeout_ms,
                         oort_error *error)
{
    if (worker >= plane->worker_count)
        return oort_fail(error, OORT_ERR_ARGUMENT, 0, "no worker %u", worker);
    struct worker *self = &plane->workers[worker];
    if (atomic_load_explicit(&plane->stopping, memory_order_relaxed))
        return drain(self, error);
    int32_t status = worker_round(self, timeout_ms, error);
    if (self->ready_first != NULL || self->commit.ticket != 0)
        (void)eventfd_write(self->wake_fd, 1);
    return status;
}

int oort_worker_fd(oort_dataplane *plane, uint32_t worker)
{
    return worker < plane->worker_count ? plane->workers[worker].epoll_fd : -1;
}

void oort_worker_nudge(oort_dataplane *plane, uint32_t worker)
{
    if (worker < plane->worker_count)
        (void)eventfd_write(plane->workers[worker].wake_fd, 1);
}

uint64_t oort_worker_rounds(oort_dataplane *plane, uint32_t worker)
{
    return worker < plane->worker_count
               ? atomic_load_explicit(&plane->workers[worker].rounds, memory_order_relaxed)
               : 0;
}

int32_t oort_worker_thread(oort_dataplane *plane, uint32_t worker)
{
    return worker < plane->worker_count ? atomic_load(&plane->workers[worker].thread) : 0;
}

void oort_workers_stop(oort_dataplane *plane)
{
    atomic_store(&plane->stopping, true);
    for (uint32_t i = 0; i < plane->worker_count; i++)
        (void)eventfd_write(plane->workers[i].wake_fd, 1);
}

/* ---- open and close ----------------------------------------------------- */

static int32_t worker_open(struct worker *worker, oort_dataplane *plane, oort_error *error)
{
    worker->plane = plane;
    worker->store = plane->store;
    for (uint32_t i = 0; i < WORKER_BATCH; i++)
        resp_parser_init(&worker->parsers[i]);
    worker->buffer = malloc(WORKER_READ_BYTES);
    worker->commands = calloc(oort_command_count() + 1u, sizeof *worker->commands);
    worker->countdown = calloc(oort_command_count() + 1u, sizeof *worker->countdown);
    if (worker->buffer == NULL || worker->commands == NULL || worker->countdown == NULL)
        return oort_fail(error, OORT_ERR_NOMEM, 0, "no memory for a data-plane worker");
    worker->session = oort_session_open(plane->store, error);
    if (worker->session == NULL)
        return error->code < 0 ? error->code : OORT_ERR_NOMEM;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event wake = {.events = EPOLLIN | EPOLLET, .data.ptr = &worker->wake_fd};
    struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.ptr = &worker->timer_fd};
    if (worker->epoll_fd < 0 || worker->wake_fd < 0 || worker->timer_fd < 0 ||
        epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->wake_fd, &wake) != 0 ||
        epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->timer_fd, &timer) != 0)
        return oort_fail(error, OORT_ERR_IO, errno, "opening a data-plane worker: %s",
                         strerror(errno));
    load_limits(worker);
    int32_t status = oort_store_watch_sync(plane->store, worker->wake_fd);
    if (status < 0)
        return oort_fail(error, status, 0, "the store takes no more data-plane workers");
    return OORT_OK;
}

static void worker_free(struct worker *worker)
{
    if (worker->plane == NULL)
        return;
    take_mails(worker);
    while (worker->conn_count > 0)
        worker_close(worker, worker->conns[worker->conn_count - 1]);
    while (worker->ready_first != NULL)
        serve_ready(worker); /* all are closed: frees them */
    for (uint32_t i = 0; i < WORKER_BATCH; i++)
        resp_parser_free(&worker->parsers[i]);
    output_free(&worker->output);
    if (worker->session != NULL)
        oort_session_close(worker->session);
    if (worker->epoll_fd >= 0)
        (void)close(worker->epoll_fd);
    if (worker->wake_fd >= 0) {
        oort_store_unwatch_sync(worker->plane->store, worker->wake_fd);
        (void)close(worker->wake_fd);
    }
    if (worker->timer_fd >= 0)
        (void)close(worker->timer_fd);
    free(worker->conns);
    free(worker->buffer);
    free(worker->commands);
    free(worker->countdown);
    (void)pthread_mutex_destroy(&worker->mail_mutex);
}

oort_dataplane *oort_dataplane_open(oort_store *store, uint32_t workers, const oort_limits *limits,
                                    oort_error *error)
{
    oort_error ignored;
    if (error == NULL)
        error = &ignored;
    *error = (oort_error){0};
    if (workers == 0 || workers > 64) {
        (void)oort_fail(error, OORT_ERR_ARGUMENT, 0, "1 to 64 data-plane workers, not %u", workers);
        return NULL;
    }
    oort_dataplane *plane = calloc(1, sizeof *plane);
    if (plane == NULL ||
        fetcher_open(&plane->fetcher, store, &plane->histograms.fetch, error) != OORT_OK) {
        (void)oort_fail(error, OORT_ERR_NOMEM, 0, "no memory for the data plane");
        free(plane);
        return NULL;
    }
    plane->store = store;
    oort_dataplane_set_limits(plane, limits);
    (void)pthread_mutex_init(&plane->mutex, NULL);
    plane->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    plane->command_base = calloc(oort_command_count() + 1u, sizeof *plane->command_base);
    plane->command_histograms = calloc(oort_command_count() + 1u,
                                       sizeof *plane->command_histograms);
    plane->workers = calloc(workers, sizeof *plane->workers);
    int32_t status = clients_open(plane, error);
    if (status == OORT_OK && (plane->request_fd < 0 || plane->command_base == NULL ||
                              plane->command_histograms == NULL || plane->workers == NULL))
        status = oort_fail(error, OORT_ERR_NOMEM, errno, "no memory for the data plane");
    for (uint32_t i = 0; status == OORT_OK && i < workers; i++) {
        struct worker *worker = &plane->workers[i];
        worker->epoll_fd = worker->wake_fd = worker->timer_fd = -1;
        (void)pthread_mutex_init(&worker->mail_mutex, NULL);
        plane->worker_count++;
        status = worker_open(worker, plane, error);
    }
    if (status != OORT_OK) {
        oort_dataplane_close(plane);
        return NULL;
    }
    return plane;
}

void oort_dataplane_close(oort_dataplane *plane)
{
    fetcher_close(&plane->fetcher);
    for (uint32_t i = 0; i < plane->worker_count; i++)
        worker_free(&plane->workers[i]);
    clients_close(plane);
    if (plane->request_fd >= 0)
        (void)close(plane->request_fd);
    (void)pthread_mutex_destroy(&plane->mutex);
    free(plane->command_base);
    free(plane->command_histograms);
    free(plane->workers);
    free(plane);
}

void oort_dataplane_set_limits(oort_dataplane *plane, const oort_limits *limits)
{
    atomic_store_explicit(&plane->query_bytes, limits->query_bytes, memory_order_relaxed);
    atomic_store_explicit(&plane->output_bytes, limits->output_bytes, memory_order_relaxed);
    atomic_store_explicit(&plane->value_cap, limits->value_cap, memory_order_relaxed);
    atomic_store_explicit(&plane->idle_seconds, limits->idle_seconds, memory_order_relaxed);
    atomic_store_explicit(&plane->no_password, limits->no_password, memory_order_relaxed);
    /* An idle worker has no timer yet when the idle timeout is set for the first time. */
    for (uint32_t i = 0; i < plane->worker_count; i++)
        (void)eventfd_write(plane->workers[i].wake_fd, 1);
}
