/*
 * test_timers.c: the heap of deadlines against a plain array: whatever is set and cleared, the
 * first deadline is the earliest.
 */
#include <stdio.h>
#include <stdlib.h>

#include "plane/conn.h"
#include "plane/timers.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static uint32_t state = 1;

static uint32_t random_below(uint32_t bound)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)state * bound >> 32);
}

static uint64_t earliest(const struct conn *conns, uint32_t count)
{
    uint64_t due_ms = UINT64_MAX;
    for (uint32_t i = 0; i < count; i++)
        if (conns[i].timer != 0 && conns[i].due_ms < due_ms)
            due_ms = conns[i].due_ms;
    return due_ms;
}

/* Every step is compared with a search through all connections. */
static void test_random_steps(void)
{
    enum { COUNT = 60 };
    struct timers timers = {0};
    struct conn *conns = calloc(COUNT, sizeof *conns);

    CHECK(conns != NULL && timers_reserve(&timers, COUNT));
    for (int step = 0; step < 100000; step++) {
        struct conn *conn = &conns[random_below(COUNT)];
        if (conn->timer != 0)
            timers_clear(&timers, conn);
        else
            timers_set(&timers, conn, random_below(50));
        const struct conn *first = timers_first(&timers);
        uint64_t due_ms = earliest(conns, COUNT);
        CHECK(first == NULL ? due_ms == UINT64_MAX : first->due_ms == due_ms);
    }
    for (int i = 0; i < COUNT; i++)
        if (conns[i].timer != 0)
            timers_clear(&timers, &conns[i]);
    timers_free(&timers);
    free(conns);
}

static void test_many(void)
{
    enum { COUNT = 100000 };
    struct timers timers = {0};
    struct conn *conns = calloc(COUNT, sizeof *conns);

    CHECK(conns != NULL);
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK(timers_reserve(&timers, (i / 4096 + 1) * 4096));
        timers_set(&timers, &conns[i], random_below(1u << 30));
    }
    for (uint32_t i = 0; i < COUNT; i += 3)
        timers_clear(&timers, &conns[i]);
    uint64_t last_ms = 0;
    uint32_t count = 0;
    for (struct conn *first; (first = timers_first(&timers)) != NULL; count++) {
        CHECK(first->due_ms >= last_ms);
        last_ms = first->due_ms;
        timers_clear(&timers, first);
    }
    CHECK(count == COUNT - (COUNT + 2) / 3);
    timers_free(&timers);
    free(conns);
}

int main(void)
{
    test_random_steps();
    test_many();
    return 0;
}
