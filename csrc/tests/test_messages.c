/*
 * test_messages.c: messages that answer no request: their order with replies, slow readers, and
 * that every message is counted once and freed.  Closing a plane asserts that no message is left.
 */
#include "tests/dataplane_suite.h"

#include <sched.h>

/* Larger than what is copied into an output. */
#define LARGE 1000u

static oort_message *new_message(struct rig *rig, const void *data, size_t size)
{
    oort_message *message = oort_message_new(rig->plane, data, size);
    CHECK(message != NULL);
    return message;
}

static int64_t send_bytes(struct rig *rig, uint64_t id, const void *data, size_t size)
{
    oort_message *message = new_message(rig, data, size);
    int64_t sent = oort_connection_send(rig->plane, &id, 1, message);
    oort_message_release(message);
    return sent;
}

static int64_t send_text(struct rig *rig, uint64_t id, const char *text)
{
    return send_bytes(rig, id, text, strlen(text));
}

/* Every third message is small enough to be copied. */
static size_t size_of(uint32_t number)
{
    return number % 3 == 0 ? 100 : LARGE;
}

/* A simple string of `size` bytes in all, with its number in front. */
static void fill(char *text, size_t size, uint32_t number)
{
    memset(text, 'm', size);
    (void)snprintf(text, 12, "+%010u", number);
    text[11] = 'm';
    memcpy(text + size - 2, "\r\n", 2);
}

static void await_no_bytes(struct rig *rig)
{
    while (oort_dataplane_message_bytes(rig->plane) != 0)
        (void)usleep(1000);
}

static void test_order(void)
{
    struct rig rig;
    uint64_t id;
    char large[LARGE];

    fill(large, sizeof large, 1);
    rig_start(&rig, &default_settings);
    int fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
    CHECK(send_text(&rig, id, "+idle\r\n") == 1);
    expect(fd, "+idle\r\n");
    CHECK(send_bytes(&rig, id, large, sizeof large) == 1);
    expect_bytes(fd, large, sizeof large);
    /* A command that Python has is answered first, and the commands behind it come after. */
    say(fd, "ECHO before\r\nDBSIZE\r\nECHO after\r\n");
    CHECK(next_request(&rig).connection == id);
    expect(fd, "$6\r\nbefore\r\n");
    CHECK(send_text(&rig, id, "+first\r\n") == 1);
    CHECK(send_bytes(&rig, id, large, sizeof large) == 1);
    CHECK(send_text(&rig, id, "+last\r\n") == 1);
    full_round(&rig);
    expect_silence(fd);
    CHECK(answer(&rig, id, ":1\r\n", 0) == OORT_OK);
    expect(fd, ":1\r\n+first\r\n");
    expect_bytes(fd, large, sizeof large);
    expect(fd, "+last\r\n$5\r\nafter\r\n");
    /* A connection that is about to close gets no more. */
    say(fd, "DBSIZE\r\n");
    CHECK(next_request(&rig).connection == id);
    CHECK(send_bytes(&rig, id, large, sizeof large) == 1);
    CHECK(answer(&rig, id, ":2\r\n", OORT_CHANGE_CLOSE) == OORT_OK);
    expect(fd, ":2\r\n");
    char byte;
    CHECK(recv(fd, &byte, 1, 0) == 0);
    CHECK(close(fd) == 0);
    await_no_bytes(&rig);
    rig_stop(&rig);
}

struct sender {
    struct rig *rig;
    uint64_t id;
    uint32_t count;
};

static void *send_many(void *context)
{
    struct sender *sender = context;
    char text[LARGE];
    for (uint32_t i = 0; i < sender->count; i++) {
        size_t size = size_of(i);
        fill(text, size, i);
        CHECK(send_bytes(sender->rig, sender->id, text, size) == 1);
        if (i % 16 == 0)
            (void)sched_yield();
    }
    return NULL;
}

/* Reads a line with its end; what has been read ahead stays in the buffer. */
struct reader {
    int fd;
    size_t start, size;
    char data[65536];
};

static size_t read_line(struct reader *reader, const char **line)
{
    for (;;) {
        char *from = reader->data + reader->start;
        char *end = memchr(from, '\n', reader->size - reader->start);
        if (end != NULL) {
            *line = from;
            reader->start += (size_t)(end + 1 - from);
            return (size_t)(end + 1 - from);
        }
        memmove(reader->data, from, reader->size - reader->start);
        reader->size -= reader->start;
        reader->start = 0;
        struct pollfd ready = {.fd = reader->fd, .events = POLLIN};
        CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
        ssize_t got = recv(reader->fd, reader->data + reader->size,
                           sizeof reader->data - reader->size, 0);
        CHECK(got > 0);
        reader->size += (size_t)got;
    }
}

/* Messages from another thread in a pipeline: both keep their order, and no reply is split. */
static void test_pipeline(void)
{
    enum { REPLIES = 30000, MESSAGES = 6000 };
    static char pipeline[REPLIES * 16];
    static struct reader reader;
    struct rig rig;
    struct sender sender = {.rig = &rig, .count = MESSAGES};
    pthread_t thread;

    rig_start(&rig, &default_settings);
    reader.fd = client_open(&rig, &sender.id, OORT_CONN_AUTHENTICATED);
    size_t size = 0;
    for (int i = 0; i < REPLIES; i++)
        size += (size_t)sprintf(pipeline + size, "ECHO %08d\r\n", i);
    CHECK(pthread_create(&thread, NULL, send_many, &sender) == 0);
    put(reader.fd, pipeline, size);
    uint32_t replies = 0, messages = 0;
    while (replies < REPLIES || messages < MESSAGES) {
        const char *line;
        char wanted[LARGE];
        size_t length = read_line(&reader, &line);
        if (line[0] == '+') {
            size_t expected = size_of(messages);
            fill(wanted, expected, messages++);
            CHECK(length == expected && memcmp(line, wanted, length) == 0);
        } else {
            CHECK(length == 4 && memcmp(line, "$8\r\n", 4) == 0);
            (void)snprintf(wanted, sizeof wanted, "%08u\r\n", replies++);
            length = read_line(&reader, &line);
            CHECK(length == 10 && memcmp(line, wanted, 10) == 0);
        }
    }
    CHECK(pthread_join(thread, NULL) == 0);
    await_no_bytes(&rig);
    CHECK(close(reader.fd) == 0);
    rig_stop(&rig);
}

/* Replies that wait for a sync hold the messages behind them, and a failed sync drops both. */
static void test_held(void)
{
    struct rig rig;
    uint64_t id;
    char large[LARGE];

    fill(large, sizeof large, 1);
    rig_start(&rig, &default_settings);
    int fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
    atomic_store(&rig.shell.ticket, 10);
    say(fd, "SET a 1\r\n");
    while (stats(&rig).waiting_sync < 1)
        (void)usleep(1000);
    CHECK(send_bytes(&rig, id, large, sizeof large) == 1);
    CHECK(send_text(&rig, id, "+small\r\n") == 1);
    full_round(&rig);
    expect_silence(fd);
    sync_to(&rig, 10);
    expect(fd, "+OK\r\n");
    expect_bytes(fd, large, sizeof large);
    expect(fd, "+small\r\n");
    atomic_store(&rig.shell.ticket, 20);
    say(fd, "SET a 2\r\n");
    while (stats(&rig).waiting_sync < 1)
        (void)usleep(1000);
    CHECK(send_bytes(&rig, id, large, sizeof large) == 1);
    full_round(&rig);
    sync_to(&rig, UINT64_MAX);
    expect(fd, "-MISCONF the log could not be synced to disk; see the server log\r\n");
    expect_end(fd);
    await_no_bytes(&rig);
    rig_stop(&rig);
}

/* A hundred connections share one buffer, which is counted once and freed after the last has it. */
static void test_fan_out(void)
{
    enum { COUNT = 100, SIZE = 1u << 20 };
    static char text[SIZE];
    uint64_t ids[COUNT + 2];
    int fds[COUNT];
    struct rig rig;

    fill(text, SIZE, 7);
    rig_start(&rig, &default_settings);
    for (int i = 0; i < COUNT; i++)
        fds[i] = client_open(&rig, &ids[i], OORT_CONN_AUTHENTICATED);
    int gone = client_open(&rig, &ids[COUNT], OORT_CONN_AUTHENTICATED);
    CHECK(close(gone) == 0);
    while (stats(&rig).connections > COUNT)
        (void)usleep(1000);
    ids[COUNT + 1] = 999999;
    oort_message *message = new_message(&rig, text, SIZE);
    CHECK(oort_connection_send(rig.plane, ids, COUNT + 2, message) == COUNT);
    oort_message_release(message);
    full_round(&rig);
    /* No socket holds a megabyte, so each connection still refers to the buffer. */
    CHECK(oort_dataplane_message_bytes(rig.plane) == SIZE);
    for (int i = 0; i < COUNT; i++) {
        CHECK(oort_dataplane_message_bytes(rig.plane) == SIZE);
        if (i % 10 == 9)
            CHECK(oort_connection_kill(rig.plane, ids[i]) == 1);
        else
            expect_bytes(fds[i], text, SIZE);
    }
    await_no_bytes(&rig);
    for (int i = 0; i < COUNT; i++)
        CHECK(close(fds[i]) == 0);
    CHECK(send_bytes(&rig, ids[9], text, SIZE) == 0);
    rig_stop(&rig);
}

/* A subscriber that does not read is dropped; the other one gets every message meanwhile. */
static void test_slow_reader(void)
{
    enum { SIZE = 100000, COUNT = 60 };
    static char text[SIZE];
    oort_plane_settings settings = default_settings;
    struct rig rig;
    uint64_t ids[2], cold;

    settings.output_bytes = 2u << 20;
    rig_start(&rig, &settings);
    int slow = client_open(&rig, &ids[0], OORT_CONN_AUTHENTICATED);
    int fast = client_open(&rig, &ids[1], OORT_CONN_AUTHENTICATED);
    for (uint32_t i = 0; i < COUNT; i++) {
        fill(text, SIZE, i);
        oort_message *message = new_message(&rig, text, SIZE);
        int64_t sent = oort_connection_send(rig.plane, ids, 2, message);
        CHECK(sent == 2 || (sent == 1 && i >= 10));
        oort_message_release(message);
        expect_bytes(fast, text, SIZE);
    }
    CHECK(stats(&rig).dropped_slow == 1);
    await_no_bytes(&rig);
    expect_end(slow);
    /* Messages that wait for a reply count, too. */
    int waiting = client_open(&rig, &cold, OORT_CONN_AUTHENTICATED);
    say(waiting, "DBSIZE\r\n");
    CHECK(next_request(&rig).connection == cold);
    for (int i = 0; i < 22; i++)
        (void)send_bytes(&rig, cold, text, SIZE);
    expect_end(waiting);
    CHECK(stats(&rig).dropped_slow == 2);
    CHECK(answer(&rig, cold, ":1\r\n", 0) == OORT_MISSING);
    await_no_bytes(&rig);
    CHECK(close(fast) == 0);
    rig_stop(&rig);
}

/* A reader that is always behind but never stops: what is sent is freed on the way. */
static void test_lagging_reader(void)
{
    enum { COUNT = 40000, AHEAD = 5000 };
    struct rig rig;
    uint64_t id;
    char text[LARGE];

    rig_start(&rig, &default_settings);
    int fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
    for (uint32_t i = 0; i < COUNT + AHEAD; i++) {
        if (i < COUNT) {
            fill(text, size_of(i), i);
            CHECK(send_bytes(&rig, id, text, size_of(i)) == 1);
        }
        if (i >= AHEAD) {
            fill(text, size_of(i - AHEAD), i - AHEAD);
            expect_bytes(fd, text, size_of(i - AHEAD));
            /* The client may have a slice before the worker has released it. */
            CHECK(oort_dataplane_message_bytes(rig.plane) <= (AHEAD + 100) * LARGE);
        }
    }
    await_no_bytes(&rig);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

/* Threads send to connections that come and go; the plane stops with messages under way. */
static void test_coming_and_going(void)
{
    enum { SENDERS = 3 };
    struct rig rig;
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    int fds[SENDERS];
    char text[LARGE];

    rig_start(&rig, &default_settings);
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.rig = &rig, .count = 2000};
        fds[i] = client_open(&rig, &senders[i].id, OORT_CONN_AUTHENTICATED);
        CHECK(pthread_create(&threads[i], NULL, send_many, &senders[i]) == 0);
    }
    fill(text, LARGE, 1);
    for (int i = 0; i < 300; i++) {
        uint64_t id;
        int fd = client_open(&rig, &id, OORT_CONN_AUTHENTICATED);
        CHECK(send_bytes(&rig, id, text, LARGE) == 1);
        if (i % 2 == 0)
            CHECK(oort_connection_kill(rig.plane, id) == 1);
        (void)send_bytes(&rig, id, text, LARGE);
        CHECK(close(fd) == 0);
    }
    for (int i = 0; i < SENDERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    oort_workers_stop(rig.plane);
    CHECK(pthread_join(rig.thread, NULL) == 0);
    for (int i = 0; i < SENDERS; i++) {
        CHECK(send_bytes(&rig, senders[i].id, text, LARGE) == 1);
        CHECK(close(fds[i]) == 0);
    }
    CHECK(oort_dataplane_message_bytes(rig.plane) >= SENDERS * LARGE);
    rig_close(&rig);
}

int main(void)
{
    test_order();
    test_pipeline();
    test_held();
    test_fan_out();
    test_slow_reader();
    test_lagging_reader();
    test_coming_and_going();
    return 0;
}
