/*
 * histogram.c: the buckets of histogram.h, and percentiles of a reading.
 */
#include "base/histogram.h"

#include <math.h>

#define LOWEST_BIT 6u   /* 2^6 ns: the bucket below takes anything shorter */
#define HIGHEST_BIT 36u /* 2^36 ns: the bucket above takes anything from here on */
#define PARTS_BITS 2u   /* four buckets a power of two */
#define PARTS (1u << PARTS_BITS)

_Static_assert(OORT_HISTOGRAM_BUCKETS == (HIGHEST_BIT - LOWEST_BIT) * PARTS + 2,
               "a bucket below and a bucket above enclose the powers of two");

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < UINT64_C(1) << LOWEST_BIT)
        return 0;
    uint32_t bit = 63u - (uint32_t)__builtin_clzll(ns);
    if (bit >= HIGHEST_BIT)
        return OORT_HISTOGRAM_BUCKETS - 1;
    uint32_t part = (uint32_t)(ns >> (bit - PARTS_BITS)) & (PARTS - 1);
    return 1 + (bit - LOWEST_BIT) * PARTS + part;
}

uint64_t oort_histogram_bound(uint32_t bucket)
{
    if (bucket == 0)
        return UINT64_C(1) << LOWEST_BIT;
    if (bucket >= OORT_HISTOGRAM_BUCKETS - 1)
        return UINT64_MAX;
    uint32_t power = (bucket - 1) / PARTS, part = (bucket - 1) % PARTS;
    return (uint64_t)(PARTS + part + 1) << (LOWEST_BIT - PARTS_BITS + power);
}

void histogram_add(struct histogram *histogram, uint64_t took_ns, uint64_t calls, uint64_t sum_ns)
{
    uint64_t max_ns = atomic_load_explicit(&histogram->max_ns, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&histogram->buckets[bucket_of(took_ns)], calls,
                                    memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&histogram->sum_ns, sum_ns, memory_order_relaxed);
    while (took_ns > max_ns &&
           !atomic_compare_exchange_weak_explicit(&histogram->max_ns, &max_ns, took_ns,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void histogram_read(struct histogram *histogram, oort_histogram *out)
{
    out->count = 0;
    for (uint32_t i = 0; i < OORT_HISTOGRAM_BUCKETS; i++) {
        out->buckets[i] = atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        out->count += out->buckets[i];
    }
    out->sum_ns = atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed);
    out->max_ns = atomic_load_explicit(&histogram->max_ns, memory_order_relaxed);
}

/* What is 0 already is not written, so that the pages of an unused histogram stay untouched. */
static void reset(_Atomic uint64_t *counter)
{
    if (atomic_load_explicit(counter, memory_order_relaxed) != 0)
        atomic_store_explicit(counter, 0, memory_order_relaxed);
}

void histogram_reset(struct histogram *histogram)
{
    for (uint32_t i = 0; i < OORT_HISTOGRAM_BUCKETS; i++)
        reset(&histogram->buckets[i]);
    reset(&histogram->sum_ns);
    reset(&histogram->max_ns);
}

uint64_t oort_histogram_percentile(const oort_histogram *histogram, double percent)
{
    double rank = ceil(percent / 100 * (double)histogram->count);
    uint64_t seen = 0;
    if (histogram->count == 0)
        return 0;
    for (uint32_t i = 0; i < OORT_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > 0 && (double)seen >= rank) {
            uint64_t highest = oort_histogram_bound(i) - 1;
            return highest < histogram->max_ns ? highest : histogram->max_ns;
        }
    }
    return histogram->max_ns;
}
