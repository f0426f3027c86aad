/*
 * data.c: the values, key draws and latency counts of the load generator (contract: data.h).
 *
 * Random numbers are splitmix64.  Zipf draws use rejection-inversion (Hoermann and Derflinger,
 * 1996), which takes constant time and memory for any keyspace.
 */
#include "load/data.h"

#include <math.h>
#include <string.h>

#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

uint64_t load_random(uint64_t *state)
{
    *state += GOLDEN;
    return mix(*state);
}

/* ---- values ---- */

void load_values_init(struct load_values *values, uint64_t seed, uint64_t minimum, uint64_t maximum)
{
    values->seed = mix(seed + GOLDEN);
    values->minimum = minimum;
    values->maximum = maximum;
    values->versioned = minimum >= LOAD_VERSIONED_BYTES;
}

struct load_value load_value_of(const struct load_values *values, uint64_t key, uint64_t version)
{
    struct load_value value = {.versioned = values->versioned};
    value.version = values->versioned ? version : 0;
    value.base = mix(values->seed ^ mix(key + GOLDEN) ^ (value.version * GOLDEN));
    value.size = values->minimum;
    if (values->maximum > values->minimum)
        value.size += mix(value.base ^ GOLDEN) % (values->maximum - values->minimum + 1);
    return value;
}

static uint64_t word_at(const struct load_value *value, uint64_t number)
{
    if (number == 0 && value->versioned)
        return value->version;
    return mix(value->base + number * GOLDEN);
}

void load_value_write(const struct load_value *value, uint8_t *out)
{
    uint64_t words = value->size / 8;
    for (uint64_t i = 0; i < words; i++) {
        uint64_t word = word_at(value, i);
        memcpy(out + i * 8, &word, 8);
    }
    if (value->size % 8 != 0) {
        uint64_t word = word_at(value, words);
        memcpy(out + words * 8, &word, value->size % 8);
    }
}

bool load_value_matches(const struct load_value *value, uint64_t offset, const uint8_t *data,
                        uint64_t size)
{
    if (offset > value->size || size > value->size - offset)
        return false;
    for (; offset % 8 == 0 && size >= 8; offset += 8, data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        if (word != word_at(value, offset / 8))
            return false;
    }
    while (size > 0) { /* part of a word at the start or the end */
        uint64_t word = word_at(value, offset / 8), skip = offset % 8;
        uint64_t step = 8 - skip < size ? 8 - skip : size;
        if (memcmp((const uint8_t *)&word + skip, data, step) != 0)
            return false;
        offset += step;
        data += step;
        size -= step;
    }
    return true;
}

/* ---- draws ---- */

/* (exp(x) - 1) / x and log(1 + x) / x, which are 1 at 0. */
static double expm1_ratio(double x)
{
    return fabs(x) > 1e-8 ? expm1(x) / x : 1 + x / 2;
}

static double log1p_ratio(double x)
{
    return fabs(x) > 1e-8 ? log1p(x) / x : 1 - x / 2;
}

/* The integral of rank^-exponent, and its inverse. */
static double integral(double exponent, double rank)
{
    double logarithm = log(rank);
    return expm1_ratio((1 - exponent) * logarithm) * logarithm;
}

static double integral_inverse(double exponent, double area)
{
    double x = area * (1 - exponent);
    if (x < -1)
        x = -1; /* rounding error */
    return exp(log1p_ratio(x) * area);
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

void load_draw_init(struct load_draw *draw, int32_t kind, uint64_t keyspace, double exponent,
                    uint64_t seed, uint64_t first)
{
    memset(draw, 0, sizeof *draw);
    draw->kind = kind;
    draw->keyspace = keyspace;
    draw->state = mix(seed);
    draw->first = draw->position = first % keyspace;
    if (kind != OORT_LOAD_ZIPF)
        return;
    draw->exponent = exponent;
    draw->integral_first = integral(exponent, 1.5) - 1;
    draw->integral_last = integral(exponent, (double)keyspace + 0.5);
    draw->shortcut = 2 - integral_inverse(exponent, integral(exponent, 2.5) - pow(2, -exponent));
    draw->scatter = (uint64_t)((double)keyspace * 0.6180339887498949) | 1;
    while (common_divisor(draw->scatter, keyspace) != 1)
        draw->scatter++;
}

/* A rank from 1 to keyspace.  Smaller ranks are more frequent. */
static uint64_t zipf_rank(struct load_draw *draw)
{
    for (;;) {
        double unit = (double)(load_random(&draw->state) >> 11) * 0x1p-53;
        double area = draw->integral_last + unit * (draw->integral_first - draw->integral_last);
        double x = integral_inverse(draw->exponent, area);
        double rank = floor(x + 0.5);
        if (rank < 1)
            rank = 1;
        if (rank > (double)draw->keyspace)
            rank = (double)draw->keyspace;
        if (rank - x <= draw->shortcut ||
            area >= integral(draw->exponent, rank + 0.5) - pow(rank, -draw->exponent))
            return (uint64_t)rank;
    }
}

uint64_t load_draw_key(struct load_draw *draw)
{
    if (draw->kind == OORT_LOAD_SEQUENTIAL) {
        uint64_t key = draw->position;
        draw->position = key + 1 == draw->keyspace ? 0 : key + 1;
        return key;
    }
    if (draw->kind == OORT_LOAD_ZIPF) {
        unsigned __int128 spread = (unsigned __int128)(zipf_rank(draw) - 1) * draw->scatter;
        return (uint64_t)(spread % draw->keyspace);
    }
    return (uint64_t)(((unsigned __int128)load_random(&draw->state) * draw->keyspace) >> 64);
}

void load_draw_rewind(struct load_draw *draw)
{
    draw->position = draw->first;
}

/* ---- histogram ---- */

void load_histogram_init(struct load_histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->smallest = UINT64_MAX;
}

/* Below 2^11 ns a bucket is 1 ns wide.  Above, every doubling has 1024 buckets. */
static uint32_t bucket_of(uint64_t ns)
{
    uint32_t top = 63 - (uint32_t)__builtin_clzll(ns | 1);
    if (top <= LOAD_HISTOGRAM_BITS)
        return (uint32_t)ns;
    uint32_t shift = top - LOAD_HISTOGRAM_BITS;
    return (shift << LOAD_HISTOGRAM_BITS) + (uint32_t)(ns >> shift);
}

/* The largest value that is counted in a bucket. */
static uint64_t bucket_end(uint32_t bucket)
{
    uint32_t doubling = bucket >> LOAD_HISTOGRAM_BITS;
    if (doubling <= 1)
        return bucket;
    uint32_t shift = doubling - 1;
    uint64_t start = (uint64_t)(bucket - (shift << LOAD_HISTOGRAM_BITS)) << shift;
    return start + (UINT64_C(1) << shift) - 1;
}

void load_histogram_add(struct load_histogram *histogram, uint64_t ns)
{
    uint64_t counted = ns >> LOAD_HISTOGRAM_TOP ? (UINT64_C(1) << LOAD_HISTOGRAM_TOP) - 1 : ns;
    histogram->buckets[bucket_of(counted)]++;
    histogram->count++;
    histogram->sum += (double)ns;
    if (ns < histogram->smallest)
        histogram->smallest = ns;
    if (ns > histogram->largest)
        histogram->largest = ns;
}

void load_histogram_merge(struct load_histogram *into, const struct load_histogram *from)
{
    for (uint32_t i = 0; i < LOAD_HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->smallest < into->smallest)
        into->smallest = from->smallest;
    if (from->largest > into->largest)
        into->largest = from->largest;
}

uint64_t load_histogram_quantile(const struct load_histogram *histogram, double share)
{
    if (histogram->count == 0)
        return 0;
    if (share <= 0)
        return histogram->smallest;
    uint64_t wanted = (uint64_t)ceil(share * (double)histogram->count);
    if (wanted >= histogram->count)
        return histogram->largest;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < LOAD_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted)
            return bucket_end(i) < histogram->largest ? bucket_end(i) : histogram->largest;
    }
    return histogram->largest;
}
