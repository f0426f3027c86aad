/*
 * dataplane_suite.h: shared by the tests of the data plane: a running worker over a store that can
 * be made to wait, a clock that can be moved, and clients on socket pairs.
 *
 * The store is the in-memory store behind a thin shell.  The shell can be told to answer OORT_COLD,
 * to give out sync tickets, to be behind, or to fail, so the tests reach every wait of a connection
 * without a disk.  The clock is the system's plus what the test adds.
 */
#ifndef OORT_TESTS_DATAPLANE_SUITE_H
#define OORT_TESTS_DATAPLANE_SUITE_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/store.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define PATIENCE_MS 20000

/* ---- a store that can be made to wait ------------------------------------ */

/* The in-memory store's operations with some of them replaced.  Their state lies behind the
 * table. */
struct shell {
    struct oort_store_ops ops;
    const struct oort_store_ops *inner;
    _Atomic int cold; /* the next reads, so many, answer OORT_COLD */
    _Atomic int fetches;
    _Atomic int fetch_status;
    _Atomic uint64_t ticket; /* given out after every run; 0: none */
    _Atomic uint64_t synced;
    _Atomic uint64_t asked; /* the last ticket for which a sync was requested */
    _Atomic int asks;
    _Atomic uint32_t gather_ms;
    _Atomic int behind;
    _Atomic int watcher;
};

static inline struct shell *shell_of(oort_store *store)
{
    return (struct shell *)(void *)(uintptr_t)store->ops;
}

static inline int32_t shell_read(oort_session *session, const oort_key *key, oort_value *out)
{
    struct shell *shell = shell_of(session->store);
    int left = atomic_load(&shell->cold);
    while (left > 0) {
        if (atomic_compare_exchange_strong(&shell->cold, &left, left - 1)) {
            session->cold = (oort_cold){.location = 1, .size = 1};
            return OORT_COLD;
        }
    }
    return shell->inner->read(session, key, out);
}

static inline int32_t shell_fetch(oort_store *store, oort_cold cold)
{
    CHECK(cold.size == 1);
    atomic_fetch_add(&shell_of(store)->fetches, 1);
    return atomic_load(&shell_of(store)->fetch_status);
}

static inline uint64_t shell_ticket(oort_session *session)
{
    return atomic_load(&shell_of(session->store)->ticket);
}

static inline uint64_t shell_synced(oort_store *store)
{
    return atomic_load(&shell_of(store)->synced);
}

static inline void shell_request_sync(oort_store *store, uint64_t ticket)
{
    atomic_store(&shell_of(store)->asked, ticket);
    atomic_fetch_add(&shell_of(store)->asks, 1);
}

static inline uint32_t shell_gather_ms(oort_store *store)
{
    return atomic_load(&shell_of(store)->gather_ms);
}

static inline int32_t shell_watch(oort_store *store, int fd)
{
    atomic_store(&shell_of(store)->watcher, fd);
    return OORT_OK;
}

static inline int32_t shell_behind(oort_store *store)
{
    return atomic_load(&shell_of(store)->behind);
}

/* ---- a clock that can be moved ------------------------------------------- */

struct moved_clock {
    oort_clock clock;
    _Atomic int64_t wall_us; /* added to the system's times */
    _Atomic int64_t monotonic_ns;
};

static inline int64_t moved_monotonic_ns(void *context)
{
    struct moved_clock *moved = context;
    return clock_monotonic_ns() + atomic_load(&moved->monotonic_ns);
}

static inline int64_t moved_wall_us(void *context)
{
    struct moved_clock *moved = context;
    return clock_wall_us() + atomic_load(&moved->wall_us);
}

/* ---- a plane with one running worker ------------------------------------- */

struct rig {
    oort_store *store;
    struct shell shell;
    struct moved_clock time;
    oort_dataplane *plane;
    pthread_t thread;
};

static inline void *run_worker(void *context)
{
    oort_error error = {0};
    CHECK(oort_worker_run(context, 0, &error) == OORT_OK);
    return NULL;
}

static const oort_plane_settings default_settings = {
    .query_bytes = 1u << 30, .output_bytes = 256u << 20, .value_cap = 512u << 20};

static inline void rig_open_on(struct rig *rig, const oort_plane_settings *settings,
                               const oort_transport *transport)
{
    oort_error error = {0};
    oort_store_config config = {0};

    memset(rig, 0, sizeof *rig);
    rig->time.clock = (oort_clock){moved_monotonic_ns, moved_wall_us, &rig->time};
    rig->store = oort_mapstore_open(&config, &error);
    CHECK(rig->store != NULL);
    rig->shell.inner = rig->store->ops;
    rig->shell.ops = *rig->store->ops;
    rig->shell.ops.read = shell_read;
    rig->shell.ops.fetch = shell_fetch;
    rig->shell.ops.ticket = shell_ticket;
    rig->shell.ops.synced = shell_synced;
    rig->shell.ops.request_sync = shell_request_sync;
    rig->shell.ops.gather_ms = shell_gather_ms;
    rig->shell.ops.watch_sync = shell_watch;
    rig->shell.ops.behind = shell_behind;
    rig->store->ops = &rig->shell.ops;
    const oort_plane_config plane = {
        .workers = 1, .clock = &rig->time.clock, .transport = transport, .settings = *settings};
    rig->plane = oort_dataplane_open(rig->store, &plane, &error);
    CHECK(rig->plane != NULL);
}

static inline void rig_open(struct rig *rig, const oort_plane_settings *settings)
{
    rig_open_on(rig, settings, NULL);
}

static inline void rig_start(struct rig *rig, const oort_plane_settings *settings)
{
    rig_open(rig, settings);
    CHECK(pthread_create(&rig->thread, NULL, run_worker, rig->plane) == 0);
}

static inline void rig_close(struct rig *rig)
{
    oort_error error = {0};
    oort_dataplane_close(rig->plane);
    rig->store->ops = rig->shell.inner;
    CHECK(oort_store_close(rig->store, &error) == OORT_OK);
}

static inline void rig_stop(struct rig *rig)
{
    oort_workers_stop(rig->plane);
    CHECK(pthread_join(rig->thread, NULL) == 0);
    rig_close(rig);
}

static inline int client_open(struct rig *rig, uint64_t *id, uint32_t flags)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    uint64_t given = oort_connection_adopt(rig->plane, 0, pair[1], flags | OORT_CONN_UNIX);
    CHECK(given != 0);
    if (id != NULL)
        *id = given;
    return pair[0];
}

static inline int client(struct rig *rig)
{
    return client_open(rig, NULL, OORT_CONN_AUTHENTICATED);
}

static inline void put(int fd, const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        CHECK(sent > 0);
        at += sent;
        size -= (size_t)sent;
    }
}

static inline void say(int fd, const char *text)
{
    put(fd, text, strlen(text));
}

/* Exactly these bytes must arrive. */
static inline void expect_bytes(int fd, const void *data, size_t size)
{
    const uint8_t *wanted = data;
    uint8_t got[65536];
    while (size > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
        ssize_t count = recv(fd, got, size < sizeof got ? size : sizeof got, 0);
        CHECK(count > 0);
        if (memcmp(got, wanted, (size_t)count) != 0) {
            fprintf(stderr, "got: %.*s\nexpected: %.*s\n", (int)(count < 200 ? count : 200), got,
                    (int)(size < 200 ? size : 200), wanted);
            exit(1);
        }
        wanted += count;
        size -= (size_t)count;
    }
}

static inline void expect(int fd, const char *text)
{
    expect_bytes(fd, text, strlen(text));
}

/* Reads up to the end of the connection. */
static inline void expect_end(int fd)
{
    char got[65536];
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
        ssize_t count = recv(fd, got, sizeof got, 0);
        if (count == 0 || (count < 0 && errno == ECONNRESET))
            break;
        CHECK(count > 0);
    }
    CHECK(close(fd) == 0);
}

static inline void expect_silence(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK(poll(&ready, 1, 0) == 0);
}

/* After this call the worker has had a whole round. */
static inline void full_round(struct rig *rig)
{
    uint64_t from = oort_worker_rounds(rig->plane, 0);
    while (oort_worker_rounds(rig->plane, 0) < from + 2) {
        oort_worker_nudge(rig->plane, 0);
        (void)usleep(1000);
    }
}

static inline oort_request next_request(struct rig *rig)
{
    oort_request request;
    struct pollfd ready = {.fd = oort_request_fd(rig->plane), .events = POLLIN};
    for (;;) {
        CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
        if (oort_request_next(rig->plane, &request) == 1)
            return request;
        uint64_t closed[16];
        (void)oort_connection_closed(rig->plane, closed, 16);
    }
}

static inline int32_t answer(struct rig *rig, uint64_t connection, const char *text,
                             uint32_t changes)
{
    oort_reply reply = {.connection = connection,
                        .data = (const uint8_t *)text,
                        .size = strlen(text),
                        .changes = changes,
                        .database = 3,
                        .protocol = 3};
    return oort_request_reply(rig->plane, &reply);
}

static inline void sync_to(struct rig *rig, uint64_t position)
{
    atomic_store(&rig->shell.synced, position);
    CHECK(eventfd_write(atomic_load(&rig->shell.watcher), 1) == 0);
}

static inline struct plane_reading stats(struct rig *rig)
{
    struct plane_reading out;
    oort_dataplane_get_metrics(rig->plane, out.place);
    return out;
}

static inline oort_command_stats command_stats(struct rig *rig, const char *name)
{
    static oort_command_stats all[512];
    CHECK(oort_command_count() <= 512);
    oort_dataplane_get_command_stats(rig->plane, all);
    return all[oort_command_find((const uint8_t *)name, strlen(name))];
}

static inline oort_histogram command_latency(struct rig *rig, const char *name)
{
    oort_histogram out;
    int32_t command = oort_command_find((const uint8_t *)name, strlen(name));
    CHECK(command >= 0);
    CHECK(oort_dataplane_get_command_histogram(rig->plane, COMMAND_HISTOGRAM_latency,
                                               (uint32_t)command, &out) == OORT_OK);
    return out;
}

#endif
