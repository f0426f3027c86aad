/*
 * load.c: the sockets, threads and schedule of the load generator (contract: load.h).
 *
 * Every thread has its own epoll over its share of the connections, its own tally and its own
 * random numbers.  Threads share only the flag that asks them to end, and counters that other
 * threads read.
 *
 * Closed loop: a connection sends its whole pipeline, waits for all replies, and sends again.
 *
 * Open loop: every request has a scheduled time, whatever the server does.  It is sent at that time
 * on the next connection with room, or as soon as a connection has room.  Its latency counts from
 * the scheduled time, so a stalled server is charged for every request that it delayed (no
 * coordinated omission).
 */
#include "load/link.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define EVENTS 128
#define READ_BYTES (256 * 1024)
#define FLUSH_BYTES                                                                                \
    (256 * 1024)        /* send when so many bytes wait, even if the batch is not complete */
#define TICK_MS 50      /* how often an idle thread looks at the clock */
#define STOP_US 1000000 /* how long a stopped run waits for replies */

struct connection {
    struct load_link link;
    int fd;               /* -1: lost */
    uint32_t batch_left;  /* closed loop: requests of the pipeline still to write */
    bool awaits_writable; /* the socket's buffer was full */
};

struct worker {
    oort_load *load;
    pthread_t thread;
    struct load_tally tally;
    struct load_draw draw;
    struct connection *connections;
    uint32_t count, alive;
    uint32_t next; /* open loop: the connection whose turn is next */
    int epoll, timer;
    uint64_t random;               /* chooses the operation */
    uint64_t version;              /* of the next value written */
    uint64_t quota;                /* measured requests still to send */
    uint64_t start_ns, end_ns;     /* nothing is sent after end_ns */
    double interval_ns;            /* open loop: between this worker's requests; 0: closed loop */
    uint64_t scheduled;            /* open loop: requests sent so far */
    uint64_t active_ns;            /* time of the last reply, or of a request after a pause */
    bool warm;                     /* the warm-up is over */
    bool failed;                   /* out of memory, or epoll failed */
    uint8_t *input;                /* READ_BYTES bytes */
    atomic_uint_fast64_t answered; /* measured; for the progress bar */
};

struct oort_load {
    oort_load_config config;
    struct worker **workers;
    uint32_t count, started;
    bool joined;
    oort_load_result result;          /* the sum, after the threads were joined */
    struct load_histogram latency[3]; /* by oort_load_op, after the threads were joined */
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    uint32_t ended_count;
};

static uint64_t clock_ns(void)
{
    return (uint64_t)clock_monotonic_ns();
}

static void set_error(oort_error *error, int32_t code, int sys_errno, const char *text)
{
    error->code = code;
    error->sys_errno = sys_errno;
    snprintf(error->text, sizeof error->text, "%s", text);
}

/* ---- sending ------------------------------------------------------------ */

static bool watch(struct worker *worker, struct connection *connection, int operation,
                  bool writable)
{
    struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0u),
                                .data.ptr = connection};
    if (epoll_ctl(worker->epoll, operation, connection->fd, &event) == 0) {
        connection->awaits_writable = writable;
        return true;
    }
    worker->failed = true;
    return false;
}

static void drop(struct worker *worker, struct connection *connection)
{
    struct load_link *link = &connection->link;
    worker->tally.result.lost++;
    worker->tally.result.unanswered += link->in_flight;
    worker->tally.in_flight -= link->in_flight;
    link->in_flight = 0;
    close(connection->fd);
    connection->fd = -1;
    worker->alive--;
}

/* Sends the waiting bytes.  False: the connection is lost. */
static bool flush(struct worker *worker, struct connection *connection)
{
    struct load_link *link = &connection->link;
    while (link->out_sent < link->out_size) {
        ssize_t sent = send(connection->fd, link->out + link->out_sent,
                            link->out_size - link->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            link->out_sent += (uint64_t)sent;
            worker->tally.result.bytes_out += (uint64_t)sent;
        } else if (errno == EAGAIN) {
            return connection->awaits_writable || watch(worker, connection, EPOLL_CTL_MOD, true);
        } else if (errno != EINTR) {
            drop(worker, connection);
            return false;
        }
    }
    link->out_size = link->out_sent = 0;
    return !connection->awaits_writable || watch(worker, connection, EPOLL_CTL_MOD, false);
}

/* Whether a request that begins at start_ns may be sent. */
static bool permitted(struct worker *worker, uint64_t start_ns)
{
    if (start_ns >= worker->end_ns || worker->quota == 0 || worker->failed ||
        atomic_load_explicit(&worker->load->stop, memory_order_relaxed))
        return false;
    if (!worker->warm && start_ns >= worker->tally.measured_from_ns) {
        worker->warm = true;
        load_draw_rewind(&worker->draw);
    }
    return true;
}

static void request(struct worker *worker, struct connection *connection, uint64_t start_ns,
                    uint64_t now_ns)
{
    const oort_load_config *config = &worker->load->config;
    uint8_t op = config->reads == 0 ? OORT_LOAD_SET : OORT_LOAD_GET;
    if (config->reads != 0 && config->writes != 0) {
        uint64_t shares = (uint64_t)config->reads + config->writes;
        if (load_random(&worker->random) % shares >= config->reads)
            op = OORT_LOAD_SET;
    }
    if (worker->tally.in_flight == 0)
        worker->active_ns = now_ns;
    if (load_link_request(&connection->link, op, load_draw_key(&worker->draw), worker->version++,
                          start_ns) != OORT_OK)
        worker->failed = true;
    if (worker->warm && worker->quota != UINT64_MAX)
        worker->quota--;
}

/* Closed loop: begins a batch if the last batch was answered, or continues the current batch. */
static void fill(struct worker *worker, struct connection *connection, uint64_t now_ns)
{
    if (connection->batch_left == 0 && connection->link.in_flight == 0)
        connection->batch_left = worker->load->config.pipeline;
    while (connection->batch_left > 0) {
        while (connection->batch_left > 0 && connection->link.out_size < FLUSH_BYTES) {
            if (!permitted(worker, now_ns)) {
                connection->batch_left = 0;
                break;
            }
            request(worker, connection, now_ns, now_ns);
            connection->batch_left--;
        }
        if (!flush(worker, connection) || connection->link.out_size > 0)
            return;
    }
}

static uint64_t due_ns(const struct worker *worker)
{
    return worker->start_ns + (uint64_t)((double)worker->scheduled * worker->interval_ns);
}

/* The next connection with room, in turn, or NULL. */
static struct connection *with_room(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->count; i++) {
        struct connection *connection = &worker->connections[worker->next];
        worker->next = worker->next + 1 == worker->count ? 0 : worker->next + 1;
        if (connection->fd >= 0 && !connection->awaits_writable &&
            connection->link.in_flight < connection->link.pipeline &&
            connection->link.out_size < FLUSH_BYTES)
            return connection;
    }
    return NULL;
}

/* Open loop: sends all requests that are due, then sets the timer for the next one. */
static void dispatch(struct worker *worker, uint64_t now_ns)
{
    bool any = false;
    struct connection *connection = NULL;
    uint64_t room = (uint64_t)worker->alive * worker->load->config.pipeline;
    /* Requests that are still due at the end are counted as unsent, because a run must not outlast
     * its time. */
    while (now_ns < worker->end_ns && worker->tally.in_flight < room && due_ns(worker) <= now_ns &&
           permitted(worker, due_ns(worker)) && (connection = with_room(worker)) != NULL) {
        request(worker, connection, due_ns(worker), now_ns);
        worker->scheduled++;
        any = true;
    }
    for (uint32_t i = 0; any && i < worker->count; i++) {
        connection = &worker->connections[i];
        if (connection->fd >= 0 && connection->link.out_size > 0 && !connection->awaits_writable)
            flush(worker, connection);
    }
    uint64_t next = due_ns(worker);
    if (next <= now_ns)
        return; /* no connection has room: the next reply leads here again */
    struct itimerspec alarm = {
        .it_value = {.tv_sec = (time_t)(next / 1000000000), .tv_nsec = (long)(next % 1000000000)}};
    if (timerfd_settime(worker->timer, TFD_TIMER_ABSTIME, &alarm, NULL) != 0)
        worker->failed = true;
}

/* ---- receiving ---------------------------------------------------------- */

/* The time at which bytes arrived, or 0 if no bytes arrived. */
static uint64_t receive(struct worker *worker, struct connection *connection)
{
    ssize_t size = recv(connection->fd, worker->input, READ_BYTES, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (size <= 0) {
        drop(worker, connection);
        return 0;
    }
    uint64_t now_ns = clock_ns();
    worker->active_ns = now_ns;
    worker->tally.result.bytes_in += (uint64_t)size;
    if (load_link_feed(&connection->link, worker->input, (uint64_t)size, now_ns))
        return now_ns;
    drop(worker, connection);
    return 0;
}

static void handle(struct worker *worker, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    uint64_t now_ns = 0;
    if (connection == NULL || connection->fd < 0)
        return; /* the timer, or a connection that was dropped earlier in this round */
    if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        now_ns = receive(worker, connection);
    if (connection->fd < 0)
        return;
    if ((event->events & EPOLLOUT) && !flush(worker, connection))
        return;
    if (worker->interval_ns > 0 || connection->link.out_size > 0)
        return;
    if (connection->link.in_flight == 0 || connection->batch_left > 0)
        fill(worker, connection, now_ns != 0 ? now_ns : clock_ns());
}

/* Whether there is nothing left to send and nothing left to wait for. */
static bool finished(struct worker *worker, uint64_t now_ns)
{
    const oort_load_config *config = &worker->load->config;
    if (worker->alive == 0 || worker->failed)
        return true;
    bool stopped = atomic_load_explicit(&worker->load->stop, memory_order_relaxed);
    if (worker->tally.in_flight > 0) {
        uint64_t patience_us = config->timeout_us;
        if (stopped && patience_us > STOP_US)
            patience_us = STOP_US;
        if (now_ns < worker->active_ns + patience_us * 1000)
            return false;
        worker->tally.result.timed_out = 1;
        return true;
    }
    return now_ns >= worker->end_ns || worker->quota == 0 || stopped;
}

static void run(struct worker *worker)
{
    struct epoll_event events[EVENTS];
    uint64_t now_ns = clock_ns();
    if (worker->interval_ns > 0)
        dispatch(worker, now_ns);
    for (uint32_t i = 0; worker->interval_ns == 0 && i < worker->count; i++)
        fill(worker, &worker->connections[i], now_ns);
    while (!finished(worker, now_ns)) {
        int count = epoll_wait(worker->epoll, events, EVENTS, TICK_MS);
        if (count < 0 && errno != EINTR)
            worker->failed = true;
        for (int i = 0; i < count; i++)
            handle(worker, &events[i]);
        now_ns = clock_ns();
        if (worker->interval_ns > 0)
            dispatch(worker, now_ns);
        const oort_load_result *result = &worker->tally.result;
        atomic_store_explicit(&worker->answered, result->gets + result->sets, memory_order_relaxed);
    }
}

/* ---- threads ------------------------------------------------------------ */

static void sum_up(struct worker *worker)
{
    oort_load_result *result = &worker->tally.result;
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0)
        result->cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                         (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    result->unanswered += worker->tally.in_flight;
    if (worker->tally.last_reply_ns > worker->tally.measured_from_ns)
        result->elapsed_us = (worker->tally.last_reply_ns - worker->tally.measured_from_ns) / 1000;
    if (worker->interval_ns > 0) {
        uint64_t now_ns = clock_ns(), until = now_ns < worker->end_ns ? now_ns : worker->end_ns;
        uint64_t due = (uint64_t)((double)(until - worker->start_ns) / worker->interval_ns);
        if (worker->quota > 0 && due > worker->scheduled)
            result->unsent = due - worker->scheduled;
    }
}

static void *thread_main(void *argument)
{
    struct worker *worker = argument;
    oort_load *load = worker->load;
    run(worker);
    sum_up(worker);
    pthread_mutex_lock(&load->mutex);
    load->ended_count++;
    pthread_cond_signal(&load->ended);
    pthread_mutex_unlock(&load->mutex);
    return NULL;
}

static void worker_free(struct worker *worker)
{
    for (uint32_t i = 0; worker->connections != NULL && i < worker->count; i++) {
        if (worker->connections[i].fd >= 0)
            close(worker->connections[i].fd);
        load_link_clear(&worker->connections[i].link);
    }
    if (worker->epoll >= 0)
        close(worker->epoll);
    if (worker->timer >= 0)
        close(worker->timer);
    free(worker->connections);
    free(worker->input);
    free(worker);
}

static bool connect_worker(struct worker *worker, const struct addrinfo *address, oort_error *error)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    worker->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (worker->epoll < 0 || worker->timer < 0 ||
        epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->timer, &event) != 0) {
        set_error(error, OORT_ERR_IO, errno,
                  "cannot make an epoll and a timer: raise the limit on open files (ulimit -n)");
        return false;
    }
    for (uint32_t i = 0; i < worker->count; i++) {
        struct connection *connection = &worker->connections[i];
        connection->fd = load_connect(&worker->load->config, address, error);
        if (connection->fd < 0)
            return false;
        worker->alive++;
        if (!watch(worker, connection, EPOLL_CTL_ADD, false)) {
            set_error(error, OORT_ERR_IO, errno, "cannot watch a connection");
            return false;
        }
    }
    return true;
}

/* The start of share `number` when total is divided into count shares. */
static uint64_t share_start(uint64_t total, uint32_t number, uint32_t count)
{
    return (uint64_t)((unsigned __int128)total * number / count);
}

static struct worker *worker_new(oort_load *load, uint32_t number)
{
    const oort_load_config *config = &load->config;
    struct worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return NULL;
    worker->epoll = worker->timer = -1;
    worker->load = load;
    uint32_t count = load->count;
    worker->input = malloc(READ_BYTES);
    uint32_t connections = (uint32_t)(share_start(config->clients, number + 1, count) -
                                      share_start(config->clients, number, count));
    worker->connections = calloc(connections, sizeof *worker->connections);
    if (worker->input == NULL || worker->connections == NULL ||
        load_tally_init(&worker->tally, config) != OORT_OK) {
        worker_free(worker);
        return NULL;
    }
    for (; worker->count < connections; worker->count++) {
        struct connection *connection = &worker->connections[worker->count];
        connection->fd = -1;
        if (load_link_init(&connection->link, &worker->tally, config->pipeline) != OORT_OK) {
            worker_free(worker);
            return NULL;
        }
    }
    uint64_t total = config->requests != 0 ? config->requests : config->keyspace;
    uint64_t first = share_start(total, number, count);
    worker->quota = config->requests == 0 ? UINT64_MAX
                                          : share_start(total, number + 1, count) - first;
    if (config->rate > 0)
        worker->interval_ns = 1e9 * (double)count / config->rate;
    worker->version = (uint64_t)(number + 1) << 48;
    worker->random = config->seed ^ ((uint64_t)number << 32);
    load_draw_init(&worker->draw, config->keys, config->keyspace, config->zipf_exponent,
                   config->seed * 1000003 + number, first);
    return worker;
}

static bool valid(const oort_load_config *config)
{
    return config->host != NULL && config->prefix != NULL &&
           strlen(config->prefix) <= LOAD_PREFIX_CAP && config->clients >= 1 &&
           config->threads >= 1 && config->threads <= config->clients && config->pipeline >= 1 &&
           config->reads <= INT32_MAX && config->writes <= INT32_MAX &&
           config->reads + config->writes >= 1 && config->keyspace >= 1 &&
           config->keyspace <= UINT64_C(1000000000000) && config->value_min <= config->value_max &&
           config->value_max <= OORT_VALUE_CAP && config->rate >= 0 &&
           config->timeout_us <= UINT64_C(1000000000000) &&
           config->duration_us <= UINT64_C(1000000000000) &&
           config->warmup_us <= UINT64_C(1000000000000) &&
           (config->requests != 0 || config->duration_us != 0) &&
           (config->keys == OORT_LOAD_UNIFORM || config->keys == OORT_LOAD_SEQUENTIAL ||
            (config->keys == OORT_LOAD_ZIPF && config->zipf_exponent > 0));
}

static bool connect_all(oort_load *load, oort_error *error)
{
    char port[8];
    struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    snprintf(port, sizeof port, "%u", (unsigned)load->config.port);
    int problem = getaddrinfo(load->config.host, port, &wanted, &addresses);
    if (problem != 0) {
        error->code = OORT_ERR_IO;
        snprintf(error->text, sizeof error->text, "cannot find the host %.200s: %s",
                 load->config.host, gai_strerror(problem));
        return false;
    }
    bool connected = true;
    for (uint32_t i = 0; connected && i < load->count; i++)
        connected = connect_worker(load->workers[i], addresses, error);
    freeaddrinfo(addresses);
    return connected;
}

oort_load *oort_load_start(const oort_load_config *config, oort_error *error)
{
    if (!valid(config)) {
        set_error(error, OORT_ERR_ARGUMENT, 0, "the configuration of the load is invalid");
        return NULL;
    }
    oort_load *load = calloc(1, sizeof *load);
    if (load == NULL || (load->workers = calloc(config->threads, sizeof *load->workers)) == NULL) {
        free(load);
        set_error(error, OORT_ERR_NOMEM, 0, "not enough memory for the load's threads");
        return NULL;
    }
    load->config = *config;
    atomic_init(&load->stop, false);
    pthread_mutex_init(&load->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&load->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    load->count = config->threads;
    for (uint32_t i = 0; i < load->count; i++) {
        load->workers[i] = worker_new(load, i);
        if (load->workers[i] == NULL) {
            set_error(error, OORT_ERR_NOMEM, 0, "not enough memory for the load's connections");
            oort_load_close(load);
            return NULL;
        }
    }
    if (!connect_all(load, error)) {
        oort_load_close(load);
        return NULL;
    }
    uint64_t start_ns = clock_ns();
    for (uint32_t i = 0; i < load->count; i++) {
        struct worker *worker = load->workers[i];
        worker->start_ns = worker->active_ns = start_ns;
        /* Open loop: the requests of the threads are interleaved. */
        if (worker->interval_ns > 0)
            worker->start_ns += (uint64_t)(worker->interval_ns * i / load->count);
        worker->tally.measured_from_ns = start_ns + config->warmup_us * 1000;
        worker->end_ns = config->duration_us == 0
                             ? UINT64_MAX
                             : worker->tally.measured_from_ns + config->duration_us * 1000;
        int problem = pthread_create(&worker->thread, NULL, thread_main, worker);
        if (problem != 0) {
            set_error(error, OORT_ERR_NOMEM, problem, "cannot start a thread");
            oort_load_close(load);
            return NULL;
        }
        load->started++;
    }
    return load;
}

uint64_t oort_load_answered(oort_load *load)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < load->count; i++)
        sum += atomic_load_explicit(&load->workers[i]->answered, memory_order_relaxed);
    return sum;
}

void oort_load_stop(oort_load *load)
{
    atomic_store_explicit(&load->stop, true, memory_order_relaxed);
}

static void merge_texts(oort_load_result *sum, const oort_load_result *part)
{
    for (uint32_t i = 0; i < part->error_texts; i++) {
        uint32_t known = 0;
        while (known < sum->error_texts && strcmp(sum->error_text[known], part->error_text[i]) != 0)
            known++;
        if (known == sum->error_texts && known < OORT_LOAD_ERROR_TEXTS)
            memcpy(sum->error_text[sum->error_texts++], part->error_text[i],
                   sizeof sum->error_text[0]);
    }
}

/* Adds up the results of the threads, which have ended. */
static void merge(oort_load *load)
{
    oort_load_result *sum = &load->result;
    for (int op = 0; op < 3; op++)
        load_histogram_init(&load->latency[op]);
    for (uint32_t i = 0; i < load->started; i++) {
        const struct worker *worker = load->workers[i];
        const oort_load_result *part = &worker->tally.result;
        for (int op = 0; op < 2; op++) {
            load_histogram_merge(&load->latency[op], &worker->tally.latency[op]);
            load_histogram_merge(&load->latency[OORT_LOAD_ANY], &worker->tally.latency[op]);
        }
        sum->gets += part->gets;
        sum->sets += part->sets;
        sum->hits += part->hits;
        sum->missing += part->missing;
        sum->wrong_value += part->wrong_value;
        sum->wrong_size += part->wrong_size;
        sum->error_replies += part->error_replies;
        sum->unexpected += part->unexpected;
        sum->lost += part->lost;
        sum->unanswered += part->unanswered;
        sum->unsent += part->unsent;
        sum->bytes_in += part->bytes_in;
        sum->bytes_out += part->bytes_out;
        sum->cpu_us += part->cpu_us;
        sum->answered += part->answered;
        sum->timed_out |= part->timed_out;
        sum->failed |= worker->failed ? 1 : 0;
        if (part->elapsed_us > sum->elapsed_us)
            sum->elapsed_us = part->elapsed_us;
        merge_texts(sum, part);
    }
}

int32_t oort_load_wait(oort_load *load, uint32_t timeout_ms)
{
    uint64_t until = clock_ns() + (uint64_t)timeout_ms * 1000000;
    struct timespec deadline = {.tv_sec = (time_t)(until / 1000000000),
                                .tv_nsec = (long)(until % 1000000000)};
    pthread_mutex_lock(&load->mutex);
    int problem = 0;
    while (load->ended_count < load->started && problem == 0)
        problem = pthread_cond_timedwait(&load->ended, &load->mutex, &deadline);
    bool over = load->ended_count == load->started;
    pthread_mutex_unlock(&load->mutex);
    if (over && !load->joined) {
        for (uint32_t i = 0; i < load->started; i++)
            pthread_join(load->workers[i]->thread, NULL);
        load->joined = true;
        merge(load);
    }
    return over ? 1 : 0;
}

void oort_load_get_result(oort_load *load, oort_load_result *out)
{
    *out = load->result;
}

uint64_t oort_load_quantile_ns(oort_load *load, int32_t op, double share)
{
    if (!load->joined || op < 0 || op > OORT_LOAD_ANY)
        return 0;
    return load_histogram_quantile(&load->latency[op], share);
}

double oort_load_mean_ns(oort_load *load, int32_t op)
{
    if (!load->joined || op < 0 || op > OORT_LOAD_ANY || load->latency[op].count == 0)
        return 0;
    return load->latency[op].sum / (double)load->latency[op].count;
}

void oort_load_close(oort_load *load)
{
    if (load == NULL)
        return;
    oort_load_stop(load);
    /* A worker that waits for replies ends after its timeout at the latest. */
    while (load->started > 0 && oort_load_wait(load, 1000) == 0)
        continue;
    for (uint32_t i = 0; i < load->count; i++)
        if (load->workers[i] != NULL)
            worker_free(load->workers[i]);
    pthread_cond_destroy(&load->ended);
    pthread_mutex_destroy(&load->mutex);
    free(load->workers);
    free(load);
}
