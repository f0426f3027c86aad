/*
 * test_metrics.c: the descriptions of the metrics, percentiles of known distributions, and what the
 * store and the data plane count, time and start again.
 */
#include "tests/dataplane_suite.h"

#include "base/histogram.h"

/* ---- histograms ------------------------------------------------------------ */

static void test_bounds(void)
{
    CHECK(oort_histogram_bound(0) == 64 && oort_histogram_bound(1) == 80);
    CHECK(oort_histogram_bound(4) == 128 && oort_histogram_bound(5) == 160);
    CHECK(oort_histogram_bound(OORT_HISTOGRAM_BUCKETS - 2) == UINT64_C(1) << 36);
    CHECK(oort_histogram_bound(OORT_HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
    for (uint32_t i = 0; i < OORT_HISTOGRAM_BUCKETS; i++) {
        struct histogram histogram = {0};
        oort_histogram reading;
        uint64_t lowest = i == 0 ? 0 : oort_histogram_bound(i - 1);
        uint64_t highest = oort_histogram_bound(i) - 1;
        CHECK(lowest < highest);
        histogram_add(&histogram, lowest, 1, 0);
        histogram_add(&histogram, highest, 1, 0);
        histogram_read(&histogram, &reading);
        CHECK(reading.buckets[i] == 2 && reading.count == 2 && reading.max_ns == highest);
    }
}

static void check_percentile(const oort_histogram *reading, double percent, uint64_t exact)
{
    uint64_t found = oort_histogram_percentile(reading, percent);
    if (found < exact || found > exact + exact / 4)
        fprintf(stderr, "p%g is %llu, not %llu\n", percent, (unsigned long long)found,
                (unsigned long long)exact);
    CHECK(found >= exact && found <= exact + exact / 4);
}

static void test_percentiles(void)
{
    struct histogram histogram = {0};
    oort_histogram reading;

    histogram_read(&histogram, &reading);
    CHECK(reading.count == 0 && oort_histogram_percentile(&reading, 50) == 0);
    /* 1 us to 100 ms in equal steps. */
    for (uint64_t us = 1; us <= 100000; us++)
        histogram_add(&histogram, us * 1000, 1, us * 1000);
    histogram_read(&histogram, &reading);
    CHECK(reading.count == 100000 && reading.max_ns == 100000000);
    CHECK(reading.sum_ns == UINT64_C(1000) * 100000 * 100001 / 2);
    check_percentile(&reading, 0.001, 1000);
    check_percentile(&reading, 50, 50000000);
    check_percentile(&reading, 99, 99000000);
    check_percentile(&reading, 99.9, 99900000);
    CHECK(oort_histogram_percentile(&reading, 100) == 100000000);

    /* Many fast calls, of which one in 256 was measured, and some slow ones. */
    histogram_reset(&histogram);
    for (int i = 0; i < 100; i++)
        histogram_add(&histogram, 300, 256, 300 * 256);
    for (int i = 0; i < 200; i++)
        histogram_add(&histogram, 5000000, 1, 5000000);
    histogram_add(&histogram, UINT64_C(90000000000), 1, 0); /* above the last bound */
    histogram_read(&histogram, &reading);
    CHECK(reading.count == 100 * 256 + 201);
    CHECK(reading.sum_ns == 100 * 256 * 300 + UINT64_C(200) * 5000000);
    check_percentile(&reading, 50, 300);
    check_percentile(&reading, 99, 300);
    check_percentile(&reading, 99.9, 5000000);
    CHECK(oort_histogram_percentile(&reading, 100) == UINT64_C(90000000000));
}

enum { ADDERS = 4, ADDITIONS = 20000 };

static void *add_many(void *context)
{
    for (uint64_t i = 1; i <= ADDITIONS; i++)
        histogram_add(context, i, 1, i);
    return NULL;
}

static void test_any_thread_may_add(void)
{
    struct histogram histogram = {0};
    oort_histogram reading;
    pthread_t threads[ADDERS];

    for (int i = 0; i < ADDERS; i++)
        CHECK(pthread_create(&threads[i], NULL, add_many, &histogram) == 0);
    for (int i = 0; i < ADDERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    histogram_read(&histogram, &reading);
    CHECK(reading.count == ADDERS * ADDITIONS && reading.max_ns == ADDITIONS);
    CHECK(reading.sum_ns == UINT64_C(1) * ADDERS * ADDITIONS * (ADDITIONS + 1) / 2);
}

/* ---- descriptions ---------------------------------------------------------- */

/* The values of an owner's rows fill its array without gaps, and no two metrics share a name. */
static void test_descriptions(void)
{
    const char *names[256];
    uint32_t count = 0;

    for (int32_t owner = OORT_METRICS_STORE; owner <= OORT_METRICS_PROCESS; owner++) {
        const oort_metric *metric;
        uint32_t places = 0, histograms = 0;
        for (uint32_t i = 0; (metric = oort_metric_at(owner, i)) != NULL; i++) {
            CHECK(metric->name[0] != 0 && metric->help[0] != 0 && metric->unit[0] != 0);
            for (uint32_t j = 0; j < count; j++)
                CHECK(strcmp(names[j], metric->name) != 0);
            CHECK(count < 256);
            names[count++] = metric->name;
            if (metric->kind == OORT_HISTOGRAM) {
                CHECK(metric->place == histograms++ && metric->values == 0);
            } else if (owner != OORT_METRICS_PROCESS) {
                CHECK(metric->place == places && metric->values > 0);
                places += metric->values;
            }
            CHECK(strcmp(metric->label, "code") != 0 || metric->values == OORT_ERROR_CODES);
            CHECK(strcmp(metric->label, "database") != 0 || metric->values == OORT_DATABASES);
        }
        CHECK(places == oort_metric_places(owner));
    }
    CHECK(oort_metric_at(-1, 0) == NULL && oort_metric_at(OORT_METRICS_PROCESS + 1, 0) == NULL);
    CHECK(oort_metric_places(-1) == 0 && oort_metric_places(OORT_METRICS_PROCESS + 1) == 0);
    for (uint32_t i = 0; i < OORT_ERROR_CODES; i++)
        CHECK(oort_error_code(i) != NULL);
    CHECK(oort_error_code(OORT_ERROR_CODES) == NULL);
}

/* ---- the store and the data plane ------------------------------------------ */

static uint32_t position(const char *name)
{
    int32_t found = oort_command_find((const uint8_t *)name, strlen(name));
    CHECK(found >= 0);
    return (uint32_t)found;
}

/* Every call of the first 256 is timed, later one in 256 is and stands for the others. */
static void test_commands_are_timed(void)
{
    enum { CALLS = 5000 };
    struct rig rig;
    oort_histogram reading;

    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    for (int i = 0; i < CALLS; i++)
        say(fd, "GET a\r\n");
    for (int i = 0; i < CALLS; i++)
        expect(fd, "$-1\r\n");
    say(fd, "SET a b\r\n");
    expect(fd, "+OK\r\n");
    reading = command_latency(&rig, "get");
    CHECK(reading.count >= CALLS && reading.count < CALLS + 256);
    CHECK(reading.sum_ns > 0 && reading.max_ns > 0);
    CHECK(command_stats(&rig, "get").calls == CALLS);
    CHECK(command_latency(&rig, "set").count == 1 && command_latency(&rig, "incr").count == 0);

    CHECK(oort_dataplane_add_time(rig.plane, position("info"), 1500) == OORT_OK);
    reading = command_latency(&rig, "info");
    CHECK(reading.count == 1 && reading.sum_ns == 1500 && reading.max_ns == 1500);
    CHECK(oort_dataplane_add_time(rig.plane, oort_command_count(), 1) == OORT_ERR_ARGUMENT);
    CHECK(oort_dataplane_get_command_histogram(rig.plane, COMMAND_HISTOGRAMS, 0, &reading) ==
          OORT_ERR_ARGUMENT);
    CHECK(oort_dataplane_get_histogram(rig.plane, PLANE_HISTOGRAMS, &reading) == OORT_ERR_ARGUMENT);

    oort_dataplane_reset_metrics(rig.plane);
    CHECK(command_latency(&rig, "get").count == 0 && command_latency(&rig, "info").max_ns == 0);
    CHECK(command_stats(&rig, "get").calls == 0);
    /* Which calls are timed does not begin again. */
    for (int i = 0; i < 256; i++)
        say(fd, "GET a\r\n");
    for (int i = 0; i < 256; i++)
        expect(fd, "$1\r\nb\r\n");
    CHECK(command_latency(&rig, "get").count == 256);
    CHECK(command_stats(&rig, "get").calls == 256);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

static void test_counters_and_fetches(void)
{
    static const char replies[] = "$-1\r\n-ERR wrong number of arguments for 'get' command\r\n"
                                  "-ERR value is not an integer or out of range\r\n";
    struct rig rig;
    oort_histogram reading;

    rig_start(&rig, &default_settings);
    int fd = client(&rig);
    atomic_store(&rig.shell.cold, 3);
    say(fd, "GET a\r\nGET\r\nINCRBY a x\r\n");
    expect(fd, replies);
    while (stats(&rig).bytes_out < sizeof replies - 1)
        (void)usleep(1000); /* counted after they are sent */
    CHECK(oort_dataplane_get_histogram(rig.plane, PLANE_HISTOGRAM_fetch, &reading) == OORT_OK);
    CHECK(reading.count == 3);
    struct plane_reading now = stats(&rig);
    CHECK(now.commands == 3 && now.misses == 1 && now.cold_reads == 1 && now.connections == 1);
    CHECK(now.errors[0] == 2 && now.bytes_in == 24 && now.bytes_out == sizeof replies - 1);
    CHECK(command_stats(&rig, "get").calls == 1 && command_stats(&rig, "get").rejected == 1);
    CHECK(command_stats(&rig, "incrby").failed == 1);

    oort_dataplane_reset_metrics(rig.plane);
    now = stats(&rig);
    for (uint32_t place = 0; place < PLANE_PLACES; place++)
        CHECK(now.place[place] == (place == PLANE_PLACE_connections));
    CHECK(oort_dataplane_get_histogram(rig.plane, PLANE_HISTOGRAM_fetch, &reading) == OORT_OK);
    CHECK(reading.count == 0);
    CHECK(command_stats(&rig, "get").rejected == 0 && command_stats(&rig, "incrby").failed == 0);
    CHECK(close(fd) == 0);
    rig_stop(&rig);
}

int main(void)
{
    test_bounds();
    test_percentiles();
    test_any_thread_may_add();
    test_descriptions();
    test_commands_are_timed();
    test_counters_and_fetches();
    return 0;
}
