/*
 * timers.c: a binary heap of deadlines.  See timers.h.
 *
 * conn->timer is the connection's position in the heap plus one, so that a deadline can be cleared
 * without a search.
 */
#include "plane/timers.h"

#include <stdlib.h>

#include "base/assert.h"
#include "plane/conn.h"

bool timers_reserve(struct timers *timers, uint32_t capacity)
{
    if (capacity <= timers->capacity)
        return true;
    struct conn **heap = realloc(timers->heap, capacity * sizeof(struct conn *));
    if (heap == NULL)
        return false;
    timers->heap = heap;
    timers->capacity = capacity;
    return true;
}

void timers_free(struct timers *timers)
{
    OORT_ASSERT(timers->count == 0, "no deadline is left when its worker closes");
    free(timers->heap);
    *timers = (struct timers){0};
}

static void put(struct timers *timers, uint32_t at, struct conn *conn)
{
    timers->heap[at] = conn;
    conn->timer = at + 1;
}

static void move_up(struct timers *timers, uint32_t at, struct conn *conn)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (timers->heap[parent]->due_ms <= conn->due_ms)
            break;
        put(timers, at, timers->heap[parent]);
        at = parent;
    }
    put(timers, at, conn);
}

static void move_down(struct timers *timers, uint32_t at, struct conn *conn)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= timers->count)
            break;
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->due_ms < timers->heap[child]->due_ms)
            child++;
        if (timers->heap[child]->due_ms >= conn->due_ms)
            break;
        put(timers, at, timers->heap[child]);
        at = child;
    }
    put(timers, at, conn);
}

void timers_set(struct timers *timers, struct conn *conn, uint64_t due_ms)
{
    OORT_ASSERT(conn->timer == 0, "a connection has one deadline at a time");
    OORT_ASSERT(timers->count < timers->capacity, "there is room for every connection's deadline");
    conn->due_ms = due_ms;
    move_up(timers, timers->count++, conn);
}

void timers_clear(struct timers *timers, struct conn *conn)
{
    uint32_t at = conn->timer - 1;

    OORT_ASSERT(conn->timer != 0 && at < timers->count && timers->heap[at] == conn,
                "a deadline's connection knows its place in the heap");
    struct conn *last = timers->heap[--timers->count];
    conn->timer = 0;
    if (last == conn)
        return;
    if (at > 0 && timers->heap[(at - 1) / 2]->due_ms > last->due_ms)
        move_up(timers, at, last);
    else
        move_down(timers, at, last);
}

struct conn *timers_first(const struct timers *timers)
{
    return timers->count == 0 ? NULL : timers->heap[0];
}
