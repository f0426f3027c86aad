/*
 * clock.c: reads the clocks.  See clock.h.
 */
#include "base/clock.h"

int64_t clock_monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_wall_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t system_monotonic_ns(void *context)
{
    (void)context;
    return clock_monotonic_ns();
}

static int64_t system_wall_us(void *context)
{
    (void)context;
    return clock_wall_us();
}

const oort_clock oort_system_clock = {.monotonic_ns = system_monotonic_ns,
                                      .wall_us = system_wall_us};

struct timespec clock_deadline(int64_t in_ms)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += in_ms / 1000;
    at.tv_nsec += in_ms % 1000 * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}
