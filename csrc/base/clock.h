/*
 * clock.h: the clocks.  No other code asks the kernel for the time.
 *
 * Monotonic time measures durations and sets deadlines.  Wall time counts from the Unix epoch; the
 * operator may step the wall clock in either direction at any moment.
 *
 * Code whose decisions depend on time takes it from an oort_clock, so that a test can move the
 * time.
 */
#ifndef OORT_CLOCK_H
#define OORT_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "oort.h"

/* A source of both times.  Any thread may call both functions. */
struct oort_clock {
    int64_t (*monotonic_ns)(void *context); /* positive; never goes back */
    int64_t (*wall_us)(void *context);      /* positive */
    void *context;
};

extern const oort_clock oort_system_clock;

int64_t clock_monotonic_ns(void);
int64_t clock_wall_us(void);
/* A point in monotonic time, for pthread_cond_timedwait. */
struct timespec clock_deadline(int64_t in_ms);

static inline int64_t clock_monotonic_ms(void)
{
    return clock_monotonic_ns() / 1000000;
}

static inline int64_t clock_wall_ms(void)
{
    return clock_wall_us() / 1000;
}

#endif
