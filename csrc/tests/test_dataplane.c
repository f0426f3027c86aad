/*
 * test_dataplane.c: clients on socket pairs and a running worker: pipelines, limits, and every
 * reason for which a connection waits.
 */
#include "tests/dataplane_suite.h"

#include <sys/resource.h>

static void test_split_pipeline(void)
{
    static const char pipeline[] =
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n"
        "SET b \"two words\\x21\"\r\nSET c plain\r\nGET b\r\n*2\r\n$3\r\nGET\r\n$1\r\nc\r\n"
        "*1\r\n$7\r\nnothere\r\n*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n";
    static const char replies[] = "+OK\r\n$5\r\nhello\r\n+PONG\r\n+OK\r\n+OK\r\n"
                                  "$10\r\ntwo words!\r\n$5\r\nplain\r\n"
                                  "-ERR unknown command 'nothere', with args beginning with: \r\n"
                                  "$2\r\nhi\r\n";
    struct rig rig;
    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    for (size_t step = 1; step <= sizeof pipeline; step = step < 9 ? step + 1 : step * 2 + 1) {
        for (size_t at = 0; at < sizeof pipeline - 1; at += step) {
            size_t left = sizeof pipeline - 1 - at;
            put(fd, pipeline + at, left < step ? left : step);
        }
        expect(fd, replies);
    }
    struct plane_reading now = stats(&rig);
    CHECK(now.hits > 0 && now.misses == 0 && now.connections == 1);
    oort_dataplane_reset_metrics(rig.plane);
    say(fd, "GET a\r\nGET missing\r\nINCR a\r\n");
    expect(fd, "$5\r\nhello\r\n$-1\r\n-ERR value is not an integer or out of range\r\n");
    CHECK(close(fd) == 0);
    uint64_t closed = 0;
    struct pollfd ready = {.fd = oort_request_fd(rig.plane), .events = POLLIN};
    CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
    CHECK(oort_connection_closed(rig.plane, &closed, 1) == 1 && closed == 1);
    CHECK(poll(&ready, 1, 0) == 0);
    now = stats(&rig);
    CHECK(now.hits == 1 && now.misses == 1 && now.commands == 3 && now.connections == 0);
    oort_command_stats incr = command_stats(&rig, "incr");
    CHECK(incr.calls == 1 && incr.failed == 1);
    CHECK(command_latency(&rig, "incr").count == 1 && command_latency(&rig, "incr").sum_ns > 0);
    rig_stop(&rig);
}

static void test_deep_pipeline(void)
{
    enum { COUNT = 100000 };
    struct rig rig;
    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    char *text = malloc(COUNT * 64);
    char *wanted = malloc(COUNT * 64);
    CHECK(text != NULL && wanted != NULL);
    size_t size = 0, wanted_size = 0;
    for (int i = 0; i < COUNT; i++) {
        size += (size_t)sprintf(text + size, "*2\r\n$4\r\nECHO\r\n$6\r\n%06d\r\n", i);
        wanted_size += (size_t)sprintf(wanted + wanted_size, "$6\r\n%06d\r\n", i);
    }
    /* Everything is written before anything is read, so the plane must accept all of it. */
    put(fd, text, size);
    expect_bytes(fd, wanted, wanted_size);
    free(text);
    free(wanted);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

static void test_big_values(void)
{
    const size_t size = 8u << 20;
    struct rig rig;
    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    char head[64];
    uint8_t *value = malloc(size);
    CHECK(value != NULL);
    for (size_t i = 0; i < size; i++)
        value[i] = (uint8_t)(i * 2654435761u >> 13);
    say(fd, "*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$8388608\r\n");
    put(fd, value, size);
    say(fd, "\r\n*3\r\n$3\r\nSET\r\n$5\r\nsmall\r\n$1\r\nx\r\n");
    expect(fd, "+OK\r\n+OK\r\n");
    /* Another client is served while this client waits for its replies, and may even replace the
     * value. */
    say(fd, "GET big\r\nGET small\r\nMGET big small big\r\n");
    int other = client(&rig);
    say(other, "SET big gone\r\nGET big\r\n");
    expect(other, "+OK\r\n$4\r\ngone\r\n");
    (void)snprintf(head, sizeof head, "$%zu\r\n", size);
    expect(fd, head);
    expect_bytes(fd, value, size);
    expect(fd, "\r\n$1\r\nx\r\n*3\r\n");
    CHECK(close(other) == 0);
    CHECK(close(fd) == 0);
    free(value);
    rig_stop(&rig);
}

static void test_half_close(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    for (int i = 0; i < 2000; i++)
        say(fd, "ECHO 0123456789\r\n");
    say(fd, "*2\r\n$4\r\nECHO\r\n$5\r\ncut");
    CHECK(shutdown(fd, SHUT_WR) == 0);
    for (int i = 0; i < 2000; i++)
        expect(fd, "$10\r\n0123456789\r\n");
    expect_end(fd);
    rig_stop(&rig);
}

static void test_protocol_error(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    int good = client(&rig);
    int bad = client(&rig);
    say(bad, "PING\r\n*1\r\n$-5\r\nPING\r\nmore bytes that nobody reads\r\n");
    expect(bad, "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n");
    expect_end(bad);
    say(good, "PING\r\n");
    expect(good, "+PONG\r\n");
    CHECK(stats(&rig).protocol_errors == 1);
    int stranger = client_open(&rig, NULL, 0);
    say(stranger, "GET a\r\n*1\r\n$20000\r\n");
    expect(stranger, "-NOAUTH Authentication required.\r\n"
                     "-ERR Protocol error: unauthenticated bulk length\r\n");
    expect_end(stranger);
    CHECK(close(good) == 0);
    rig_stop(&rig);
}

static void test_request_for_python(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    uint64_t id;
    int fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
    say(fd, "SET a 1\r\nSELECT 3\r\nGET a\r\nDBSIZE\r\nINCR a\r\n");
    oort_request request = next_request(&rig);
    expect(fd, "+OK\r\n");
    CHECK(request.connection == id && request.argc == 2 && request.database == 0);
    CHECK(request.argv[1].size == 1 && request.argv[1].data[0] == '3');
    CHECK(request.command == oort_command_find((const uint8_t *)"select", 6));
    expect_silence(fd);
    CHECK(answer(&rig, id, "+OK\r\n", OORT_CHANGE_DATABASE | OORT_CHANGE_PROTOCOL) == OORT_OK);
    CHECK(answer(&rig, id, "+OK\r\n", 0) == OORT_ERR_ARGUMENT);
    expect(fd, "+OK\r\n_\r\n");
    request = next_request(&rig);
    CHECK(request.database == 3 && request.protocol == 3 && request.argc == 1);
    oort_connection_info info;
    CHECK(oort_connection_list(rig.plane, &info, 1) == 1);
    CHECK(info.id == id && info.database == 3 && info.protocol == 3 && info.query_bytes > 0);
    CHECK(answer(&rig, id, ":7\r\n", 0) == OORT_OK);
    expect(fd, ":7\r\n:1\r\n");
    /* Commands after QUIT are not executed. */
    say(fd, "QUIT\r\nPING\r\n");
    CHECK(next_request(&rig).connection == id);
    CHECK(answer(&rig, id, "+OK\r\n", OORT_CHANGE_CLOSE) == OORT_OK);
    expect(fd, "+OK\r\n");
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char byte;
    CHECK(poll(&ready, 1, PATIENCE_MS) == 1 && recv(fd, &byte, 1, 0) == 0);
    CHECK(close(fd) == 0);
    /* The client closes while its command is being executed.  The arguments stay valid, and the end
     * of the connection is reported after the command. */
    fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
    say(fd, "CLIENT SETNAME someone\r\n");
    request = next_request(&rig);
    CHECK(oort_connection_kill(rig.plane, id) == 1);
    expect_end(fd);
    while (stats(&rig).connections > 0)
        (void)usleep(1000);
    CHECK(request.argv[2].size == 7 && memcmp(request.argv[2].data, "someone", 7) == 0);
    CHECK(answer(&rig, id, "+OK\r\n", 0) == OORT_MISSING);
    CHECK(answer(&rig, 999999, "+OK\r\n", 0) == OORT_MISSING);
    uint64_t closed[4];
    CHECK(oort_connection_closed(rig.plane, closed, 4) >= 1);
    CHECK(oort_connection_kill(rig.plane, id) == 0);
    rig_stop(&rig);
}

static void test_cold_record(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    say(fd, "MSET a 1 b 2\r\n");
    expect(fd, "+OK\r\n");
    atomic_store(&rig.shell.cold, 5);
    say(fd, "PING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nMGET a \"b\"\r\nECHO after\r\n");
    expect(fd, "+PONG\r\n$1\r\n1\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n$5\r\nafter\r\n");
    CHECK(atomic_load(&rig.shell.fetches) == 5 && stats(&rig).cold_reads >= 1);
    CHECK(command_latency(&rig, "get").sum_ns > 0);
    /* A record that cannot be read gives an error and no endless wait. */
    atomic_store(&rig.shell.fetch_status, OORT_ERR_IO);
    atomic_store(&rig.shell.cold, 1000000);
    say(fd, "GET \"a\"\r\nPING\r\n");
    expect(fd, "-ERR the value could not be read from disk; see the server log\r\n+PONG\r\n");
    atomic_store(&rig.shell.fetch_status, OORT_OK);
    say(fd, "GET a\r\nPING\r\n");
    expect(fd, "-ERR the value could not be read from disk; see the server log\r\n+PONG\r\n");
    atomic_store(&rig.shell.cold, 1);
    say(fd, "GET a\r\n");
    expect(fd, "$1\r\n1\r\n");
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

static void test_group_commit(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    int first = client(&rig), second = client(&rig);
    atomic_store(&rig.shell.ticket, 10);
    say(first, "SET a 1\r\nDBSIZE\r\n");
    oort_request request = next_request(&rig);
    CHECK(answer(&rig, request.connection, ":1\r\n", 0) == OORT_OK);
    say(second, "SET b 2\r\nGET b\r\n");
    while (stats(&rig).waiting_sync < 2)
        (void)usleep(1000);
    sync_to(&rig, 9);
    expect_silence(first);
    expect_silence(second);
    sync_to(&rig, 10);
    expect(first, "+OK\r\n:1\r\n");
    expect(second, "+OK\r\n$1\r\n2\r\n");
    /* The store fails, so no waiting command is acknowledged. */
    atomic_store(&rig.shell.ticket, 20);
    say(first, "SET a 3\r\n");
    while (stats(&rig).waiting_sync < 1)
        (void)usleep(1000);
    sync_to(&rig, UINT64_MAX);
    expect(first, "-MISCONF the log could not be synced to disk; see the server log\r\n");
    expect_end(first);
    /* There will be no more sync rounds. */
    say(second, "SET b 4\r\n");
    expect(second, "-MISCONF the log could not be synced to disk; see the server log\r\n");
    expect_end(second);
    rig_stop(&rig);
}

static void await_ask(struct rig *rig, uint64_t ticket)
{
    while (atomic_load(&rig->shell.asked) < ticket)
        (void)usleep(1000);
}

/* On a slow device, clients that keep writing share one sync.  A client that stops delays the
 * others only briefly. */
static void test_gathering(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    int first = client(&rig), second = client(&rig);
    atomic_store(&rig.shell.gather_ms, PATIENCE_MS);
    atomic_store(&rig.shell.ticket, 1);
    say(first, "SET a 1\r\n");
    await_ask(&rig, 1);
    atomic_store(&rig.shell.ticket, 2);
    say(second, "SET b 1\r\n");
    while (stats(&rig).waiting_sync < 2)
        (void)usleep(1000);
    sync_to(&rig, 1);
    expect(first, "+OK\r\n");
    expect_silence(second);
    CHECK(atomic_load(&rig.shell.asks) == 1);
    say(first, "SET a 2\r\n");
    await_ask(&rig, 2);
    sync_to(&rig, 2);
    expect(first, "+OK\r\n");
    expect(second, "+OK\r\n");
    CHECK(atomic_load(&rig.shell.asks) == 2);
    /* The first client does not write again. */
    atomic_store(&rig.shell.gather_ms, 1);
    for (uint64_t ticket = 3; ticket < 10; ticket++) {
        atomic_store(&rig.shell.ticket, ticket);
        say(second, "SET b 2\r\n");
        await_ask(&rig, ticket);
        sync_to(&rig, ticket);
        expect(second, "+OK\r\n");
    }
    /* The store fails while a sync waits for more clients. */
    atomic_store(&rig.shell.gather_ms, PATIENCE_MS);
    atomic_store(&rig.shell.ticket, 10);
    say(first, "SET a 3\r\n");
    await_ask(&rig, 10);
    say(second, "SET b 3\r\n");
    while (stats(&rig).waiting_sync < 2)
        (void)usleep(1000);
    sync_to(&rig, UINT64_MAX);
    expect(first, "-MISCONF the log could not be synced to disk; see the server log\r\n");
    expect(second, "-MISCONF the log could not be synced to disk; see the server log\r\n");
    rig_stop(&rig);
}

static void test_behind(void)
{
    struct rig rig;
    rig_start(&rig, &default_settings);
    int writer = client(&rig), reader = client(&rig);
    atomic_store(&rig.shell.behind, 1);
    say(writer, "GET w\r\nSET w 1\r\nGET w\r\n");
    expect(writer, "$-1\r\n");
    for (int i = 0; i < 5; i++) {
        say(reader, "GET w\r\n");
        expect(reader, "$-1\r\n");
    }
    expect_silence(writer);
    atomic_store(&rig.shell.behind, 0);
    expect(writer, "+OK\r\n$1\r\n1\r\n");
    CHECK(close(writer) == 0 && close(reader) == 0);
    rig_stop(&rig);
}

static void test_limits(void)
{
    oort_plane_settings settings = default_settings;
    struct rig rig;
    settings.output_bytes = 1u << 20;
    settings.query_bytes = 1u << 20;
    rig_start(&rig, &settings);
    int slow = client(&rig);
    say(slow, "SET v ");
    char *value = malloc(60000);
    CHECK(value != NULL);
    memset(value, 'v', 60000);
    put(slow, value, 60000);
    say(slow, "\r\n");
    expect(slow, "+OK\r\n");
    /* The connection may be dropped before all requests were sent. */
    for (int i = 0; i < 200; i++)
        if (send(slow, "GET v\r\n", 7, MSG_NOSIGNAL) < 0)
            break;
    /* The client reads nothing until the connection was dropped. */
    while (stats(&rig).dropped_slow == 0)
        (void)usleep(1000);
    expect_end(slow);
    int greedy = client(&rig);
    say(greedy, "*2\r\n$4\r\nECHO\r\n$400000000\r\n");
    for (int i = 0; i < 100; i++)
        if (send(greedy, value, 60000, MSG_NOSIGNAL) < 0)
            break;
    expect_end(greedy);
    CHECK(stats(&rig).dropped_query == 1);
    int fine = client(&rig), idle = client(&rig);
    say(fine, "PING\r\nDBSIZE\r\n");
    expect(fine, "+PONG\r\n");
    uint64_t waiting = next_request(&rig).connection;
    settings.idle_seconds = 1;
    CHECK(oort_dataplane_configure(rig.plane, &settings) == OORT_OK);
    expect_end(idle);
    CHECK(stats(&rig).dropped_idle == 1);
    /* A client that waits for a reply is not idle. */
    CHECK(answer(&rig, waiting, ":1\r\n", 0) == OORT_OK);
    expect(fine, ":1\r\n");
    free(value);
    CHECK(close(fine) == 0);
    rig_stop(&rig);
}

static void test_many_and_poll(void)
{
    enum { COUNT = 1000 };
    static int fds[COUNT];
    struct rlimit files = {0};
    struct rig rig;

    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    rig_start(&rig, &default_settings);
    for (int i = 0; i < COUNT; i++)
        fds[i] = client(&rig);
    for (int i = 0; i < COUNT; i++) {
        char text[96];
        (void)snprintf(text, sizeof text, "SET k%d %d\r\nGET k%d\r\nINCR all\r\nDBSIZE\r\n", i, i,
                       i);
        say(fds[i], text);
    }
    for (int i = 0; i < COUNT; i++)
        CHECK(answer(&rig, next_request(&rig).connection, ":0\r\n", 0) == OORT_OK);
    for (int i = 0; i < COUNT; i++) {
        char text[64], number[16];
        int digits = snprintf(number, sizeof number, "%d", i);
        (void)snprintf(text, sizeof text, "+OK\r\n$%d\r\n%s\r\n", digits, number);
        expect(fds[i], text);
    }
    oort_connection_info *list = calloc(COUNT, sizeof *list);
    CHECK(list != NULL && oort_connection_list(rig.plane, list, COUNT) == COUNT);
    for (int i = 0; i < COUNT; i += 2)
        CHECK(oort_connection_kill(rig.plane, list[i].id) == 1);
    for (int i = 0; i < COUNT; i++) {
        if (i % 2 == 0)
            expect_end(fds[i]);
        else
            CHECK(close(fds[i]) == 0);
    }
    free(list);
    rig_stop(&rig);

    /* The same, but driven from outside: the descriptor is readable while there is work. */
    oort_error error;
    rig_open(&rig, &default_settings);
    static char text[5000 * 17];
    for (int i = 0; i < 5000; i++)
        memcpy(text + (size_t)i * 17, "ECHO 0123456789\r\n", 17);
    int fd = client(&rig);
    put(fd, text, sizeof text);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    size_t got = 0;
    for (bool end = false; !end;) {
        char buffer[65536];
        struct pollfd ready = {.fd = oort_worker_fd(rig.plane, 0), .events = POLLIN};
        CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
        CHECK(oort_worker_poll(rig.plane, 0, 0, &error) == OORT_OK);
        ssize_t count;
        while ((count = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
            got += (size_t)count;
        end = count == 0;
    }
    CHECK(got == 5000 * 17);
    CHECK(close(fd) == 0);
    fd = client(&rig); /* never served, closed with the plane */
    rig_close(&rig);
    expect_end(fd);
}

int main(void)
{
    test_split_pipeline();
    test_deep_pipeline();
    test_big_values();
    test_half_close();
    test_protocol_error();
    test_request_for_python();
    test_cold_record();
    test_group_commit();
    test_gathering();
    test_behind();
    test_limits();
    test_many_and_poll();
    return 0;
}
