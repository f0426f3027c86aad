/*
 * test_event_wait.c: connections that wait for an event: every way in which a wait ends, and that
 * it ends once.
 */
#include "tests/dataplane_suite.h"

#include <sys/resource.h>

/* The next request is answered after a wait. */
static int32_t answer_later(struct rig *rig, uint64_t id, uint64_t wait, int64_t wait_ms,
                            const char *text)
{
    oort_reply reply = {.connection = id,
                        .data = (const uint8_t *)text,
                        .size = strlen(text),
                        .changes = OORT_CHANGE_WAIT,
                        .wait = wait,
                        .wait_ms = wait_ms};
    return oort_request_reply(rig->plane, &reply);
}

static int32_t wake(struct rig *rig, uint64_t id, uint64_t wait, const char *text)
{
    oort_reply reply = {
        .connection = id, .data = (const uint8_t *)text, .size = strlen(text), .wait = wait};
    return oort_connection_wake(rig->plane, &reply);
}

/* A client whose command waits. */
static int waiting_client(struct rig *rig, uint64_t *id, uint64_t wait, int64_t wait_ms,
                          const char *text)
{
    int fd = client_open(rig, id, OORT_CONN_AUTHENTICATED);
    say(fd, "DBSIZE\r\n");
    CHECK(next_request(rig).connection == *id);
    CHECK(answer_later(rig, *id, wait, wait_ms, text) == OORT_OK);
    full_round(rig);
    return fd;
}

static void pass_ms(struct rig *rig, int64_t ms)
{
    atomic_fetch_add(&rig->time.monotonic_ns, ms * 1000000);
    full_round(rig);
}

static void send_text(struct rig *rig, uint64_t id, const char *text)
{
    oort_message *message = oort_message_new(rig->plane, (const uint8_t *)text, strlen(text));
    CHECK(message != NULL && oort_connection_send(rig->plane, &id, 1, message) == 1);
    oort_message_release(message);
}

static void test_time_out(void)
{
    struct rig rig;
    uint64_t id;

    rig_start(&rig, &default_settings);
    int fd = waiting_client(&rig, &id, 1, 600000, "*-1\r\n");
    say(fd, "ECHO after\r\n");
    pass_ms(&rig, 300000);
    expect_silence(fd);
    /* Messages reach a client that waits; its next command does not run. */
    send_text(&rig, id, "+message\r\n");
    expect(fd, "+message\r\n");
    expect_silence(fd);
    pass_ms(&rig, 300000);
    expect(fd, "*-1\r\n$5\r\nafter\r\n");
    CHECK(wake(&rig, id, 1, ":1\r\n") == OORT_MISSING);
    /* Without moving the clock: the timer begins the round. */
    say(fd, "DBSIZE\r\n");
    CHECK(next_request(&rig).connection == id);
    CHECK(answer_later(&rig, id, 2, 1, ":2\r\n") == OORT_OK);
    expect(fd, ":2\r\n");
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

static void test_wake(void)
{
    struct rig rig;
    uint64_t id;

    rig_start(&rig, &default_settings);
    int fd = waiting_client(&rig, &id, 7, -1, "*-1\r\n");
    pass_ms(&rig, INT64_C(1000) * 86400 * 365);
    expect_silence(fd);
    CHECK(wake(&rig, id, 6, ":6\r\n") == OORT_MISSING);
    CHECK(wake(&rig, id + 1, 7, ":6\r\n") == OORT_MISSING);
    CHECK(wake(&rig, id, 0, ":6\r\n") == OORT_ERR_ARGUMENT);
    oort_reply again = {.connection = id, .wait = 7, .changes = OORT_CHANGE_WAIT};
    CHECK(oort_connection_wake(rig.plane, &again) == OORT_ERR_ARGUMENT);
    CHECK(wake(&rig, id, 7, ":7\r\n") == OORT_OK);
    CHECK(wake(&rig, id, 7, ":8\r\n") == OORT_MISSING);
    expect(fd, ":7\r\n");
    /* Right after the reply that waits, before the worker has seen that reply. */
    say(fd, "DBSIZE\r\nECHO after\r\n");
    CHECK(next_request(&rig).connection == id);
    CHECK(answer_later(&rig, id, 0, -1, "") == OORT_ERR_ARGUMENT);
    CHECK(answer_later(&rig, id, 8, -1, "*-1\r\n") == OORT_OK);
    CHECK(wake(&rig, id, 8, "-ERR woken\r\n") == OORT_OK);
    expect(fd, "-ERR woken\r\n$5\r\nafter\r\n");
    CHECK(command_stats(&rig, "dbsize").failed == 1);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

/* The replies before a wait are held by a sync; the wait ends meanwhile. */
static void test_wait_and_sync(void)
{
    struct rig rig;
    uint64_t id;

    rig_start(&rig, &default_settings);
    int fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
    atomic_store(&rig.shell.ticket, 10);
    say(fd, "SET a 1\r\nDBSIZE\r\n");
    CHECK(next_request(&rig).connection == id);
    CHECK(answer_later(&rig, id, 1, 1000, ":1\r\n") == OORT_OK);
    full_round(&rig);
    send_text(&rig, id, "+message\r\n");
    pass_ms(&rig, 1000);
    expect_silence(fd);
    sync_to(&rig, 10);
    expect(fd, "+OK\r\n+message\r\n:1\r\n");
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

static void await_connections(struct rig *rig, uint64_t count)
{
    while (stats(rig).connections != count)
        (void)usleep(1000);
}

static void test_killed_and_closed(void)
{
    struct rig rig;
    uint64_t killed, left, half;

    rig_start(&rig, &default_settings);
    int killed_fd = waiting_client(&rig, &killed, 1, 600000, ":1\r\n");
    int left_fd = waiting_client(&rig, &left, 2, -1, ":2\r\n");
    int half_fd = waiting_client(&rig, &half, 3, -1, ":3\r\n");
    CHECK(oort_connection_kill(rig.plane, killed) == 1);
    char byte;
    struct pollfd end = {.fd = killed_fd, .events = POLLIN};
    CHECK(poll(&end, 1, PATIENCE_MS) == 1 && recv(killed_fd, &byte, 1, 0) == 0);
    CHECK(close(killed_fd) == 0);
    CHECK(close(left_fd) == 0);
    await_connections(&rig, 1);
    CHECK(wake(&rig, killed, 1, ":9\r\n") == OORT_MISSING);
    CHECK(wake(&rig, left, 2, ":9\r\n") == OORT_MISSING);
    /* A client that will send no more is answered as if the time had passed. */
    say(half_fd, "ECHO after\r\n");
    CHECK(shutdown(half_fd, SHUT_WR) == 0);
    expect(half_fd, ":3\r\n$5\r\nafter\r\n");
    CHECK(recv(half_fd, &byte, 1, 0) == 0);
    CHECK(close(half_fd) == 0);
    CHECK(wake(&rig, half, 3, ":9\r\n") == OORT_MISSING);
    rig_stop(&rig);
}

/* A stop answers nothing and leaves nothing behind: one wait goes on, one is woken too late. */
static void test_stop(void)
{
    struct rig rig;
    uint64_t ids[2];
    int fds[2];

    rig_start(&rig, &default_settings);
    for (int i = 0; i < 2; i++)
        fds[i] = waiting_client(&rig, &ids[i], 1, 600000, ":1\r\n");
    oort_workers_stop(rig.plane);
    CHECK(pthread_join(rig.thread, NULL) == 0);
    CHECK(wake(&rig, ids[1], 1, ":2\r\n") == OORT_OK);
    rig_close(&rig);
    for (int i = 0; i < 2; i++) {
        char byte;
        CHECK(recv(fds[i], &byte, 1, 0) == 0);
        CHECK(close(fds[i]) == 0);
    }
}

static void test_idle(void)
{
    oort_plane_settings settings = default_settings;
    struct rig rig;
    uint64_t id;

    settings.idle_seconds = 60;
    rig_start(&rig, &settings);
    int idle = client(&rig);
    int fd = waiting_client(&rig, &id, 1, 3600000, ":1\r\n");
    pass_ms(&rig, 3599000);
    CHECK(stats(&rig).dropped_idle == 1);
    expect_end(idle);
    pass_ms(&rig, 2000);
    expect(fd, ":1\r\n");
    /* The wait was no idle time, and idle time begins with its end. */
    pass_ms(&rig, 30000);
    say(fd, "PING\r\n");
    expect(fd, "+PONG\r\n");
    pass_ms(&rig, 61000);
    CHECK(stats(&rig).dropped_idle == 2);
    expect_end(fd);
    rig_stop(&rig);
}

/* Many deadlines, some of which are cleared before they pass. */
static void test_many(void)
{
    enum { COUNT = 800 };
    static int fds[COUNT];
    static uint64_t ids[COUNT];
    struct rlimit files = {0};
    struct rig rig;

    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    rig_start(&rig, &default_settings);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = client_open(&rig, &ids[i], OORT_CONN_AUTHENTICATED);
        say(fds[i], "DBSIZE\r\n");
    }
    for (int i = 0; i < COUNT; i++) {
        uint64_t id = next_request(&rig).connection;
        /* Deadlines in no order, a thousand seconds apart: ids begin with 1. */
        int64_t place = (int64_t)((id - 1) * 7919 % COUNT);
        CHECK(answer_later(&rig, id, id, (place + 1) * 1000000, ":1\r\n") == OORT_OK);
    }
    for (int i = 0; i < COUNT; i += 4)
        CHECK(wake(&rig, ids[i], ids[i], ":2\r\n") == OORT_OK);
    for (int i = 0; i < COUNT; i += 4)
        expect(fds[i], ":2\r\n");
    for (int i = 1; i < COUNT; i += 4) {
        CHECK(oort_connection_kill(rig.plane, ids[i]) == 1);
        expect_end(fds[i]);
    }
    pass_ms(&rig, (int64_t)COUNT / 2 * 1000000 + 500000);
    for (int i = 0; i < COUNT; i++) {
        if (i % 4 == 1)
            continue;
        if (i % 4 != 0 && (ids[i] - 1) * 7919 % COUNT < COUNT / 2)
            expect(fds[i], ":1\r\n");
        expect_silence(fds[i]);
        CHECK(close(fds[i]) == 0);
    }
    rig_stop(&rig);
}

/* ---- a wake and a deadline at the same moment ----------------------------- */

struct waker {
    struct rig *rig;
    uint64_t id;
    _Atomic uint64_t wait; /* the wait to end; UINT64_MAX: no more */
    _Atomic int woken;
};

static void *wake_often(void *context)
{
    struct waker *waker = context;
    uint64_t wait;
    while ((wait = atomic_load(&waker->wait)) != UINT64_MAX)
        if (wake(waker->rig, waker->id, wait, "+woken\r\n") == OORT_OK)
            atomic_fetch_add(&waker->woken, 1);
    return NULL;
}

static void test_race(void)
{
    enum { ROUNDS = 1500 };
    struct rig rig;
    struct waker waker = {.rig = &rig, .wait = 1};
    pthread_t threads[2];
    int timed_out = 0;

    rig_start(&rig, &default_settings);
    int fd = client_open(&rig, &waker.id, OORT_CONN_AUTHENTICATED);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, wake_often, &waker) == 0);
    for (uint64_t wait = 1; wait <= ROUNDS; wait++) {
        int woken = atomic_load(&waker.woken);
        /* Every third wait is left to the deadline. */
        atomic_store(&waker.wait, wait % 3 == 0 ? wait + ROUNDS : wait);
        say(fd, "DBSIZE\r\n");
        CHECK(next_request(&rig).connection == waker.id);
        CHECK(answer_later(&rig, waker.id, wait, 0, "+timed\r\n") == OORT_OK);
        char got[8];
        size_t size = 0;
        while (size < sizeof got) {
            ssize_t count = recv(fd, got + size, sizeof got - size, 0);
            CHECK(count > 0);
            size += (size_t)count;
        }
        if (memcmp(got, "+woken\r\n", 8) == 0) {
            while (atomic_load(&waker.woken) == woken)
                (void)sched_yield(); /* the waker has not counted it yet */
        } else {
            CHECK(memcmp(got, "+timed\r\n", 8) == 0);
            timed_out++;
        }
    }
    expect_silence(fd);
    atomic_store(&waker.wait, UINT64_MAX);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&waker.woken) + timed_out == ROUNDS && timed_out >= ROUNDS / 3);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

int main(void)
{
    test_time_out();
    test_wake();
    test_wait_and_sync();
    test_killed_and_closed();
    test_stop();
    test_idle();
    test_many();
    test_race();
    return 0;
}
