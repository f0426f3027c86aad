/*
 * plane.c: the plane and its workers' rounds.
 *
 * A worker is one epoll set and one thread that drives it.  Sockets are edge triggered: a round
 * notes what became readable or writable, and the ready list holds the connections that have
 * something to do.  So a connection that waits costs nothing, and epoll_ctl is needed for the rare
 * EPOLLOUT only.  The wake-up eventfd and the timer are edge triggered as well and never read.  A
 * round leaves work behind on the ready list only.  oort_worker_poll then signals the worker's own
 * eventfd, so that a loop that watches the epoll descriptor comes back.
 *
 * A round reads the clock and picks up the settings once.
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

#include "base/assert.h"
#include "base/error.h"

#define ROUND_EVENTS 256
#define STOP_MS 1000u /* for sending what is left when stopping */
#define STOP_STEP_MS 20

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

static int32_t worker_round(struct worker *worker, int timeout_ms, oort_error *error)
{
    struct epoll_event events[ROUND_EVENTS];
    bool woken = false;
    bool may_wait = timeout_ms != 0 && !worker->draining;

    if (worker->ready_first != NULL)
        timeout_ms = 0;
    else if (worker->commit.ticket != 0)
        timeout_ms = may_wait ? worker->commit.wait_ms : 0;
    int count = epoll_wait(worker->epoll_fd, events, ROUND_EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR)
        return oort_fail(error, OORT_ERR_IO, errno, "epoll_wait: %s", strerror(errno));
    (void)atomic_fetch_add_explicit(&worker->rounds, 1, memory_order_relaxed);
    worker_read_clock(worker);
    settings_pick_up(worker);
    worker->behind = oort_store_behind(worker->store) != 0;
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &worker->wake_fd)
            woken = true;
        else if (events[i].data.ptr == &worker->timer_fd)
            worker->timer_due_ms = 0;
        else
            note_event(worker, &events[i]);
    }
    if (woken) {
        worker_take_mails(worker);
        worker_take_sync(worker);
    }
    worker_run_timers(worker);
    worker_serve_ready(worker);
    if (worker->commit.ticket != 0)
        worker_commit(worker, count <= 0, may_wait);
    worker_arm_timer(worker);
    return OORT_OK;
}

/* Stopping: send the replies that there are, within a bounded time. */
static int32_t drain(struct worker *worker, oort_error *error)
{
    worker->draining = true;
    worker_read_clock(worker);
    uint64_t until_ms = worker->now_ms + STOP_MS;
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
        worker_nudge(self);
    return status;
}

int oort_worker_fd(oort_dataplane *plane, uint32_t worker)
{
    return worker < plane->worker_count ? plane->workers[worker].epoll_fd : -1;
}

void oort_worker_nudge(oort_dataplane *plane, uint32_t worker)
{
    if (worker < plane->worker_count)
        worker_nudge(&plane->workers[worker]);
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
        worker_nudge(&plane->workers[i]);
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
    settings_pick_up(worker);
    worker_read_clock(worker);
    int32_t status = oort_store_watch_sync(plane->store, worker->wake_fd);
    if (status < 0)
        return oort_fail(error, status, 0, "the store takes no more data-plane workers");
    return OORT_OK;
}

static void worker_free(struct worker *worker)
{
    if (worker->plane == NULL)
        return;
    worker_close_mailbox(worker);
    while (worker->conn_count > 0)
        worker_close(worker, worker->conns[worker->conn_count - 1]);
    while (worker->ready_first != NULL)
        worker_serve_ready(worker); /* all of them are closed, so this only frees them */
    timers_free(&worker->timers);
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

static int32_t plane_open(oort_dataplane *plane, const oort_plane_config *config, oort_error *error)
{
    int32_t status = settings_open(plane, &config->settings, error);
    if (status == OORT_OK)
        status = clients_open(plane, error);
    if (status < 0)
        return status;
    plane->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    plane->command_base = calloc(oort_command_count() + 1u, sizeof *plane->command_base);
    plane->command_histograms = calloc(oort_command_count() + 1u,
                                       sizeof *plane->command_histograms);
    plane->workers = calloc(config->workers, sizeof *plane->workers);
    if (plane->request_fd < 0 || plane->command_base == NULL || plane->command_histograms == NULL ||
        plane->workers == NULL)
        return oort_fail(error, OORT_ERR_NOMEM, errno, "no memory for the data plane");
    for (uint32_t i = 0; status == OORT_OK && i < config->workers; i++) {
        struct worker *worker = &plane->workers[i];
        worker->epoll_fd = worker->wake_fd = worker->timer_fd = -1;
        (void)pthread_mutex_init(&worker->mail_mutex, NULL);
        plane->worker_count++;
        status = worker_open(worker, plane, error);
    }
    return status;
}

oort_dataplane *oort_dataplane_open(oort_store *store, const oort_plane_config *config,
                                    oort_error *error)
{
    oort_error ignored;
    if (error == NULL)
        error = &ignored;
    *error = (oort_error){0};
    if (config->workers == 0 || config->workers > PLANE_WORKERS_MAX) {
        (void)oort_fail(error, OORT_ERR_ARGUMENT, 0, "1 to %u data-plane workers, not %u",
                        PLANE_WORKERS_MAX, config->workers);
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
    plane->clock = config->clock == NULL ? &oort_system_clock : config->clock;
    plane->transport = config->transport == NULL ? &oort_plain_transport : config->transport;
    plane->request_fd = -1;
    (void)pthread_mutex_init(&plane->mutex, NULL);
    if (plane_open(plane, config, error) != OORT_OK) {
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
    OORT_ASSERT(atomic_load(&plane->message_bytes) == 0,
                "every message is released before its plane closes");
    clients_close(plane);
    settings_close(plane);
    if (plane->request_fd >= 0)
        (void)close(plane->request_fd);
    (void)pthread_mutex_destroy(&plane->mutex);
    free(plane->command_base);
    free(plane->command_histograms);
    free(plane->workers);
    free(plane);
}
