/*
 * timers.h: deadlines of connections: a binary heap, the earliest first.
 *
 * Setting and clearing take O(log n), so a hundred thousand connections may have deadlines.  A
 * connection has at most one deadline.  It belongs to its worker's thread.
 */
#ifndef OORT_TIMERS_H
#define OORT_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

struct conn;

struct timers {
    struct conn **heap; /* conn->due_ms of a parent is not above that of its children */
    uint32_t count, capacity;
};

/* Room for so many connections; setting a deadline then needs no memory.  false: memory is short.
 */
bool timers_reserve(struct timers *timers, uint32_t capacity);
void timers_free(struct timers *timers);

void timers_set(struct timers *timers, struct conn *conn, uint64_t due_ms);
void timers_clear(struct timers *timers, struct conn *conn);
/* The connection with the earliest deadline, or NULL. */
struct conn *timers_first(const struct timers *timers);

#endif
