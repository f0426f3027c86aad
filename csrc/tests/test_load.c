/*
 * test_load.c: the parts of the load generator that know no sockets: values, draws, latency counts,
 * and replies in pieces of every size.
 */
#include "load/link.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

/* Every quantile of 1 to n, and of powers, is within 0.1 % of the true quantile. */
static void test_histogram(void)
{
    struct load_histogram *histogram = malloc(sizeof *histogram), *other = malloc(sizeof *other);
    if (histogram == NULL || other == NULL)
        abort();
    load_histogram_init(histogram);
    load_histogram_init(other);
    CHECK(load_histogram_quantile(histogram, 0.5) == 0);
    for (uint64_t i = 1; i <= 1000000; i++)
        load_histogram_add(i % 2 ? histogram : other, i * 37);
    load_histogram_merge(histogram, other);
    CHECK(histogram->count == 1000000);
    for (int i = 1; i < 1000; i++) {
        double exact = i * 1000.0 * 37;
        double found = (double)load_histogram_quantile(histogram, i / 1000.0);
        CHECK(fabs(found - exact) <= exact * 0.001 + 1);
    }
    CHECK(load_histogram_quantile(histogram, 0) == 37);
    CHECK(load_histogram_quantile(histogram, 1) == 37000000);
    for (int bit = 0; bit < 63; bit++) {
        uint64_t ns = UINT64_C(1) << bit;
        load_histogram_init(other);
        load_histogram_add(other, ns - 1);
        load_histogram_add(other, ns);
        load_histogram_add(other, ns * 2);
        double found = (double)load_histogram_quantile(other, 0.5);
        if (bit < LOAD_HISTOGRAM_TOP)
            CHECK(fabs(found - (double)ns) <= (double)ns * 0.001);
        CHECK(load_histogram_quantile(other, 1) == ns * 2);
    }
    free(histogram);
    free(other);
}

static void test_draws(void)
{
    enum { KEYS = 1000, DRAWS = 2000000 };
    static uint32_t counts[KEYS];
    struct load_draw draw;

    load_draw_init(&draw, OORT_LOAD_SEQUENTIAL, 5, 0, 1, 3);
    uint64_t expected[] = {3, 4, 0, 1};
    for (int i = 0; i < 4; i++)
        CHECK(load_draw_key(&draw) == expected[i]);
    load_draw_rewind(&draw);
    CHECK(load_draw_key(&draw) == 3);

    /* Zipf: every rank has its own key, and its frequency is right. */
    double exponents[] = {0.5, 0.99, 1.0, 2.0};
    for (int e = 0; e < 4; e++) {
        double sum = 0;
        for (int rank = 1; rank <= KEYS; rank++)
            sum += pow(rank, -exponents[e]);
        memset(counts, 0, sizeof counts);
        load_draw_init(&draw, OORT_LOAD_ZIPF, KEYS, exponents[e], 7, 0);
        for (int i = 0; i < DRAWS; i++) {
            uint64_t key = load_draw_key(&draw);
            if (key >= KEYS)
                abort();
            counts[key]++;
        }
        for (uint64_t rank = 1; rank <= KEYS; rank *= 2) {
            double wanted = DRAWS * pow((double)rank, -exponents[e]) / sum;
            double found = counts[(rank - 1) * draw.scatter % KEYS];
            CHECK(fabs(found - wanted) < 6 * sqrt(wanted) + 1);
        }
    }
    memset(counts, 0, sizeof counts);
    load_draw_init(&draw, OORT_LOAD_UNIFORM, KEYS, 0, 7, 0);
    for (int i = 0; i < DRAWS; i++)
        counts[load_draw_key(&draw)]++;
    for (int i = 0; i < KEYS; i++)
        CHECK(fabs(counts[i] - (double)DRAWS / KEYS) < 6 * sqrt((double)DRAWS / KEYS));

    load_draw_init(&draw, OORT_LOAD_ZIPF, 1, 1.2, 7, 0);
    CHECK(load_draw_key(&draw) == 0);
}

static void test_values(void)
{
    uint8_t bytes[64], again[64];
    for (uint64_t size = 0; size <= sizeof bytes; size++) {
        struct load_values values;
        load_values_init(&values, 1, size, size);
        struct load_value value = load_value_of(&values, 42, 5);
        CHECK(value.size == size);
        load_value_write(&value, bytes);
        for (uint64_t from = 0; from <= size; from++) {
            CHECK(load_value_matches(&value, from, bytes + from, size - from));
            memcpy(again, bytes, sizeof again);
            if (from < size) {
                again[from] ^= 1;
                CHECK(!load_value_matches(&value, 0, again, size));
            }
        }
        CHECK(!load_value_matches(&value, 1, bytes, size));
        struct load_value other = load_value_of(&values, 43, 5);
        if (size > LOAD_VERSIONED_BYTES)
            CHECK(!load_value_matches(&other, 0, bytes, size));
    }
}

struct bench {
    struct load_tally *tally;
    struct load_link link;
    uint8_t value[40];
};

static void bench_open(struct bench *bench, uint32_t pipeline)
{
    oort_load_config config = {.prefix = "k", .seed = 9, .value_min = 40, .value_max = 40};
    bench->tally = calloc(1, sizeof *bench->tally);
    if (bench->tally == NULL || load_tally_init(bench->tally, &config) != OORT_OK ||
        load_link_init(&bench->link, bench->tally, pipeline) != OORT_OK)
        abort();
    struct load_value value = load_value_of(&bench->tally->values, 7, 77);
    load_value_write(&value, bench->value);
}

static void bench_close(struct bench *bench)
{
    load_link_clear(&bench->link);
    free(bench->tally);
}

static void ask(struct bench *bench, uint8_t op)
{
    if (load_link_request(&bench->link, op, 7, 77, 1) != OORT_OK)
        abort();
}

static void test_requests(void)
{
    struct bench bench;
    bench_open(&bench, 2);
    ask(&bench, OORT_LOAD_GET);
    ask(&bench, OORT_LOAD_SET);
    const char *get = "*2\r\n$3\r\nGET\r\n$13\r\nk000000000007\r\n";
    const char *set = "*3\r\n$3\r\nSET\r\n$13\r\nk000000000007\r\n$40\r\n";
    const uint8_t *out = bench.link.out;
    CHECK(bench.link.out_size == strlen(get) + strlen(set) + 42);
    CHECK(memcmp(out, get, strlen(get)) == 0);
    CHECK(memcmp(out + strlen(get), set, strlen(set)) == 0);
    CHECK(memcmp(out + strlen(get) + strlen(set), bench.value, 40) == 0);
    bench_close(&bench);
}

/* Valid replies of every kind, complete and cut into pieces of every size. */
static void test_good_replies(void)
{
    for (uint64_t piece = 1; piece < 80; piece++) {
        struct bench bench;
        uint8_t stream[128];
        bench_open(&bench, 3);
        ask(&bench, OORT_LOAD_GET);
        ask(&bench, OORT_LOAD_SET);
        ask(&bench, OORT_LOAD_GET);
        memcpy(stream, "$40\r\n", 5);
        memcpy(stream + 5, bench.value, 40);
        memcpy(stream + 45, "\r\n+OK\r\n$-1\r\n", 12);
        for (uint64_t at = 0; at < 57; at += piece)
            CHECK(load_link_feed(&bench.link, stream + at, 57 - at < piece ? 57 - at : piece, 9));
        const oort_load_result *result = &bench.tally->result;
        CHECK(result->hits == 1 && result->missing == 1 && result->sets == 1 && result->gets == 2);
        CHECK(result->answered == 3 && bench.tally->in_flight == 0);
        CHECK(result->wrong_value + result->wrong_size + result->unexpected +
                  result->error_replies ==
              0);
        bench_close(&bench);
    }
}

/* Feeds one reply to one request.  Whether the connection can still be used. */
static bool answer(struct bench *bench, uint8_t op, const char *reply, size_t size,
                   oort_load_result *found)
{
    bench_open(bench, 1);
    ask(bench, op);
    bool usable = load_link_feed(&bench->link, (const uint8_t *)reply, size, 9);
    *found = bench->tally->result;
    bench_close(bench);
    return usable;
}

#define ANSWER(op, reply) answer(&bench, op, reply, sizeof(reply) - 1, &found)

static void test_bad_replies(void)
{
    struct bench bench;
    oort_load_result found;
    CHECK(ANSWER(OORT_LOAD_GET, "-ERR no\r\n"));
    CHECK(found.error_replies == 1 && strcmp(found.error_text[0], "ERR no") == 0);
    CHECK(ANSWER(OORT_LOAD_GET, "$3\r\nabc\r\n") && found.wrong_size == 1);
    CHECK(ANSWER(OORT_LOAD_GET, "$0\r\n\r\n") && found.wrong_size == 1);
    CHECK(ANSWER(OORT_LOAD_GET, "$40\r\n0123456789012345678901234567890123456789\r\n"));
    CHECK(found.wrong_value == 1 && found.hits == 0);
    CHECK(ANSWER(OORT_LOAD_GET, "+OK\r\n") && found.unexpected == 1);
    CHECK(ANSWER(OORT_LOAD_SET, "$-1\r\n") && found.unexpected == 1);
    CHECK(ANSWER(OORT_LOAD_SET, "$2\r\nOK\r\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_GET, "$3\r\nabcd\r\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_GET, "$x\r\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_GET, "$-2\r\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_GET, "$99999999999999999999\r\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_GET, "*1\r\n+OK\r\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_SET, "+OK\n") && found.unexpected == 1);
    CHECK(!ANSWER(OORT_LOAD_SET, "+OK\r\n+OK\r\n") && found.unexpected == 1);
    char endless[2000];
    memset(endless, '+', sizeof endless);
    CHECK(!answer(&bench, OORT_LOAD_SET, endless, sizeof endless, &found));
}

int main(void)
{
    test_histogram();
    test_draws();
    test_values();
    test_requests();
    test_good_replies();
    test_bad_replies();
    return failures == 0 ? 0 : 1;
}
