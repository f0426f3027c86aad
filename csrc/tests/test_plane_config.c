/*
 * test_plane_config.c: what a data plane is opened with: its clock, its transport, and the
 * settings that change while it runs.
 */
#include "tests/dataplane_suite.h"

#include "plane/conn.h"
#include "plane/transport.h"

#define YEAR_SECONDS INT64_C(31536000)

/* ---- the clock ---------------------------------------------------------- */

static void move_wall(struct rig *rig, int64_t seconds)
{
    atomic_fetch_add(&rig->time.wall_us, seconds * 1000000);
}

/* Monotonic time passes, and what is due then is done. */
static void pass(struct rig *rig, int64_t seconds)
{
    atomic_fetch_add(&rig->time.monotonic_ns, seconds * 1000000000);
    full_round(rig);
}

static void ping(int fd)
{
    say(fd, "PING\r\n");
    expect(fd, "+PONG\r\n");
}

/* Idle time is monotonic: a wall clock that is set neither drops a client nor keeps one. */
static void test_idle(void)
{
    oort_plane_settings settings = default_settings;
    struct rig rig;

    settings.idle_seconds = 3600;
    rig_start(&rig, &settings);
    int busy = client(&rig), idle = client(&rig);
    ping(busy);
    ping(idle);
    for (int i = 0; i < 2; i++) {
        move_wall(&rig, i == 0 ? YEAR_SECONDS : -2 * YEAR_SECONDS);
        pass(&rig, 2); /* idle connections are looked for once a second */
        CHECK(stats(&rig).dropped_idle == 0);
        ping(busy);
    }
    pass(&rig, 1800);
    ping(busy);
    pass(&rig, 1800);
    CHECK(stats(&rig).dropped_idle == 1);
    expect_end(idle);
    ping(busy);
    CHECK(close(busy) == 0);
    rig_stop(&rig);
}

static void await_connections(struct rig *rig, uint64_t count)
{
    while (stats(rig).connections != count) {
        full_round(rig);
        (void)usleep(1000);
    }
}

/* A client that does not close its side is given a moment, whatever the wall clock does. */
static void test_linger(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    for (int i = 0; i < 2; i++) {
        int fd = client(&rig);
        say(fd, "*1\r\n$-1\r\n");
        expect(fd, "-ERR Protocol error: invalid bulk length\r\n");
        struct pollfd end = {.fd = fd, .events = POLLRDHUP};
        CHECK(poll(&end, 1, PATIENCE_MS) == 1);
        move_wall(&rig, i == 0 ? YEAR_SECONDS : -2 * YEAR_SECONDS);
        pass(&rig, 2);
        await_connections(&rig, 0);
        CHECK(close(fd) == 0);
    }
    rig_stop(&rig);
}

/* What is shown and what expires follow the wall clock. */
static void test_wall_clock(void)
{
    struct rig rig;
    oort_connection_info before, after;

    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    say(fd, "SET k v EX 100\r\nGET k\r\n");
    expect(fd, "+OK\r\n$1\r\nv\r\n");
    CHECK(oort_connection_list(rig.plane, &before, 1) == 1);
    move_wall(&rig, YEAR_SECONDS);
    say(fd, "GET k\r\n");
    expect(fd, "$-1\r\n");
    CHECK(oort_connection_list(rig.plane, &after, 1) == 1);
    CHECK(after.created_ms == before.created_ms);
    CHECK(after.active_ms >= before.active_ms + (uint64_t)YEAR_SECONDS * 1000);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

/* ---- the transport ------------------------------------------------------ */

static _Atomic int opened, closed, shut;

static void tiny_open(struct conn *conn)
{
    atomic_fetch_add(&opened, 1);
    oort_plain_transport.open(conn);
}

static ssize_t tiny_recv(struct conn *conn, void *data, size_t size)
{
    return oort_plain_transport.recv(conn, data, size);
}

/* Seven bytes a call, as a peer with little room would take them. */
static ssize_t tiny_send(struct conn *conn, const struct iovec *parts, int count)
{
    struct iovec some = parts[0];
    (void)count;
    if (some.iov_len > 7)
        some.iov_len = 7;
    return oort_plain_transport.send(conn, &some, 1);
}

static int tiny_shutdown(struct conn *conn)
{
    atomic_fetch_add(&shut, 1);
    return oort_plain_transport.shutdown(conn);
}

static void tiny_close(struct conn *conn)
{
    atomic_fetch_add(&closed, 1);
    oort_plain_transport.close(conn);
}

static const oort_transport tiny_transport = {tiny_open, tiny_recv, tiny_send, tiny_shutdown,
                                              tiny_close};

static void test_transport(void)
{
    struct rig rig;
    rig_open_on(&rig, &default_settings, &tiny_transport);
    CHECK(pthread_create(&rig.thread, NULL, run_worker, rig.plane) == 0);
    int fd = client(&rig), other = client(&rig);
    for (int i = 0; i < 500; i++)
        say(fd, "ECHO 0123456789\r\n");
    say(fd, "*1\r\n$-1\r\n");
    for (int i = 0; i < 500; i++)
        expect(fd, "$10\r\n0123456789\r\n");
    expect(fd, "-ERR Protocol error: invalid bulk length\r\n");
    expect_end(fd);
    CHECK(atomic_load(&shut) == 1);
    CHECK(close(other) == 0);
    await_connections(&rig, 0);
    CHECK(atomic_load(&opened) == 2 && atomic_load(&closed) == 2);
    rig_stop(&rig);
}

/* ---- the settings ------------------------------------------------------- */

static void *configure_often(void *context)
{
    struct rig *rig = context;
    oort_plane_settings settings = default_settings;
    for (uint64_t i = 0; i < 2000; i++) {
        settings.value_cap = (1u << 20) + i;
        CHECK(oort_dataplane_configure(rig->plane, &settings) == OORT_OK);
    }
    return NULL;
}

/* Two threads change the settings while a worker uses them. */
static void test_settings(void)
{
    struct rig rig;
    pthread_t threads[2];

    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, configure_often, &rig) == 0);
    for (int i = 0; i < 1000; i++)
        ping(fd);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    oort_plane_settings settings = default_settings;
    settings.value_cap = 5;
    CHECK(oort_dataplane_configure(rig.plane, &settings) == OORT_OK);
    full_round(&rig);
    say(fd, "*2\r\n$4\r\nECHO\r\n$6\r\n123456\r\n");
    expect(fd, "-ERR Protocol error: invalid bulk length\r\n");
    expect_end(fd);
    rig_stop(&rig);
}

int main(void)
{
    test_idle();
    test_linger();
    test_wall_clock();
    test_transport();
    test_settings();
    return 0;
}
