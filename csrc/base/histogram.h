/*
 * histogram.h: durations as counts in buckets.
 *
 * Every power of two from 64 ns to 68.7 s (2^36 ns) has four buckets of equal width.  A percentile is
 * therefore at most a quarter above the true value.  One bucket below and one above take the other
 * durations.  The size is fixed: 992 bytes.
 *
 * Any number of threads may add, read and reset at the same time, because every counter is a relaxed
 * atomic.  A reading is not a snapshot: each counter is correct, but the counters are of slightly
 * different moments.
 */
#ifndef OORT_HISTOGRAM_H
#define OORT_HISTOGRAM_H

#include <stdatomic.h>

#include "oort.h"

struct histogram {
    _Atomic uint64_t buckets[OORT_HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum_ns, max_ns;
};

/* Counts `calls` calls.  One of them was measured and took took_ns; together they add sum_ns to the
 * sum. */
void histogram_add(struct histogram *histogram, uint64_t took_ns, uint64_t calls, uint64_t sum_ns);
void histogram_read(struct histogram *histogram, oort_histogram *out);
void histogram_reset(struct histogram *histogram);

#endif
