/*
 * data.h: the parts of the load generator that know no sockets.
 *
 *  - values: the bytes of a value follow from (seed, key number, version).  Any part of them can be
 *    computed alone, so a reply is checked as it arrives and is never stored.
 *  - draws: the choice of the next key: uniform, Zipf, or in sequence.
 *  - histogram: counts of latencies in log-linear buckets, with an error of at most 0.1 %.
 *
 * No function here allocates, locks, or fails.
 */
#ifndef OORT_LOAD_DATA_H
#define OORT_LOAD_DATA_H

#include "load.h"

/* ---- values ---- */

/* A value of at least this size has its version in the first 8 bytes. */
#define LOAD_VERSIONED_BYTES 16

struct load_values {
    uint64_t seed;
    uint64_t minimum, maximum; /* bytes */
    bool versioned;
};

struct load_value {
    uint64_t base; /* its bytes are derived from it */
    uint64_t version;
    uint64_t size;
    bool versioned;
};

void load_values_init(struct load_values *values, uint64_t seed, uint64_t minimum,
                      uint64_t maximum);
struct load_value load_value_of(const struct load_values *values, uint64_t key, uint64_t version);
/* Writes all bytes of the value. */
void load_value_write(const struct load_value *value, uint8_t *out);
/* Whether the value has these bytes at this offset. */
bool load_value_matches(const struct load_value *value, uint64_t offset, const uint8_t *data,
                        uint64_t size);

/* ---- draws ---- */

struct load_draw {
    uint64_t state; /* state of the random numbers */
    uint64_t keyspace;
    uint64_t position, first; /* sequence: the next key, and the first */
    uint64_t scatter;         /* Zipf: spreads neighbouring ranks over the keyspace */
    double exponent;
    double integral_first, integral_last, shortcut;
    int32_t kind; /* an oort_load_keys */
};

void load_draw_init(struct load_draw *draw, int32_t kind, uint64_t keyspace, double exponent,
                    uint64_t seed, uint64_t first);
uint64_t load_draw_key(struct load_draw *draw);
/* Starts the sequence again. */
void load_draw_rewind(struct load_draw *draw);
uint64_t load_random(uint64_t *state);

/* ---- histogram ---- */

/* Every doubling has 1024 buckets, so a bucket is at most 1/1024 of its value wide.  Values of 2^40
 * ns (18 minutes) and more are counted in the last bucket. */
#define LOAD_HISTOGRAM_BITS 10
#define LOAD_HISTOGRAM_TOP 40
#define LOAD_HISTOGRAM_BUCKETS                                                                     \
    ((LOAD_HISTOGRAM_TOP - LOAD_HISTOGRAM_BITS + 1) << LOAD_HISTOGRAM_BITS)

struct load_histogram {
    uint64_t count;
    uint64_t smallest, largest;
    double sum;
    uint64_t buckets[LOAD_HISTOGRAM_BUCKETS];
};

void load_histogram_init(struct load_histogram *histogram);
void load_histogram_add(struct load_histogram *histogram, uint64_t ns);
void load_histogram_merge(struct load_histogram *into, const struct load_histogram *from);
uint64_t load_histogram_quantile(const struct load_histogram *histogram, double share);

#endif
