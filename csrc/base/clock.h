/*
 * clock.h: the clocks.  No other code asks the kernel for the time.
 *
 * Monotonic time measures durations and sets deadlines.  Wall time counts from the Unix epoch; the
 * operator may set it forward or back.
 */
#ifndef OORT_CLOCK_H
#define OORT_CLOCK_H

#include <stdint.h>
#include <time.h>

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
