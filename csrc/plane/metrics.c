/*
 * metrics.c: the data plane's metrics: the workers' counters, summed for each reading.
 *
 * Each counter of a worker has one writer, and that is the worker.  A reset therefore cannot set it to
 * 0: the reset notes where the counters are, and later readings begin there.  Histograms are written by
 * atomic additions, so a reset empties them.
 *
 * Memory: a histogram for each command of the table, shared by all workers.  Pages that hold histograms
 * of unused commands only stay untouched.
 */
#include <string.h>

#include "base/assert.h"
#include "plane/plane.h"

/* The first words of error replies.  Any other first word is counted as the first of these. */
static const char *const codes[OORT_ERROR_CODES] = {"ERR",     "NOAUTH", "WRONGPASS", "NOPROTO",
                                                    "MISCONF", "NOPERM", "OOM"};

const char *oort_error_code(uint32_t position)
{
    return position < OORT_ERROR_CODES ? codes[position] : NULL;
}

void worker_count_error(struct worker *worker, const uint8_t *reply, uint64_t size)
{
    uint32_t found = 0;
    if (size == 0 || reply[0] != '-')
        return; /* memory was short: there is no reply */
    for (uint32_t i = 1; i < OORT_ERROR_CODES; i++) {
        size_t length = strlen(codes[i]);
        if (size > length + 1 && reply[length + 1] == ' ' &&
            memcmp(reply + 1, codes[i], length) == 0)
            found = i;
    }
    shown_add(&worker->stats.errors[found], 1);
}

static struct plane_reading sum(oort_dataplane *plane)
{
    struct plane_reading out = {0};
    for (uint32_t i = 0; i < plane->worker_count; i++)
        for (uint32_t place = 0; place < PLANE_PLACES; place++)
            out.place[place] += shown_get(&plane->workers[i].stats.place[place]);
    return out;
}

static struct command_reading sum_command(oort_dataplane *plane, uint32_t command)
{
    struct command_reading out = {0};
    for (uint32_t i = 0; i < plane->worker_count; i++)
        for (uint32_t place = 0; place < COMMAND_PLACES; place++)
            out.place[place] += shown_get(&plane->workers[i].commands[command].place[place]);
    return out;
}

static void subtract(uint64_t *values, const uint64_t *base, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        OORT_ASSERT(values[i] >= base[i], "a counter only grows");
        values[i] -= base[i];
    }
}

void oort_dataplane_get_metrics(oort_dataplane *plane, uint64_t *out)
{
    (void)pthread_mutex_lock(&plane->mutex);
    struct plane_reading now = sum(plane);
    subtract(now.place, plane->base.place, PLANE_PLACES);
    now.connections = plane->live_count;
    now.message_bytes = messages_unsent(plane);
    (void)pthread_mutex_unlock(&plane->mutex);
    memcpy(out, now.place, sizeof now.place);
}

void oort_dataplane_get_command_stats(oort_dataplane *plane, oort_command_stats *out)
{
    (void)pthread_mutex_lock(&plane->mutex);
    for (uint32_t i = 0; i < oort_command_count(); i++) {
        struct command_reading now = sum_command(plane, i);
        subtract(now.place, plane->command_base[i].place, COMMAND_PLACES);
        memcpy(&out[i], now.place, sizeof now.place);
    }
    (void)pthread_mutex_unlock(&plane->mutex);
}

int32_t oort_dataplane_get_histogram(oort_dataplane *plane, uint32_t place, oort_histogram *out)
{
    if (place >= PLANE_HISTOGRAMS)
        return OORT_ERR_ARGUMENT;
    histogram_read(&plane->histograms.place[place], out);
    return OORT_OK;
}

int32_t oort_dataplane_get_command_histogram(oort_dataplane *plane, uint32_t place,
                                             uint32_t command, oort_histogram *out)
{
    if (place >= COMMAND_HISTOGRAMS || command >= oort_command_count())
        return OORT_ERR_ARGUMENT;
    histogram_read(&plane->command_histograms[command].place[place], out);
    return OORT_OK;
}

int32_t oort_dataplane_add_time(oort_dataplane *plane, uint32_t command, uint64_t nanoseconds)
{
    if (command >= oort_command_count())
        return OORT_ERR_ARGUMENT;
    histogram_add(&plane->command_histograms[command].latency, nanoseconds, 1, nanoseconds);
    return OORT_OK;
}

void oort_dataplane_reset_metrics(oort_dataplane *plane)
{
    const oort_metric *metric;
    (void)pthread_mutex_lock(&plane->mutex);
    struct plane_reading now = sum(plane);
    for (uint32_t i = 0; (metric = oort_metric_at(OORT_METRICS_PLANE, i)) != NULL; i++)
        if (metric->resets != 0)
            memcpy(&plane->base.place[metric->place], &now.place[metric->place],
                   metric->values * sizeof *now.place);
    for (uint32_t i = 0; i < oort_command_count(); i++) {
        plane->command_base[i] = sum_command(plane, i);
        for (uint32_t place = 0; place < COMMAND_HISTOGRAMS; place++)
            histogram_reset(&plane->command_histograms[i].place[place]);
    }
    for (uint32_t place = 0; place < PLANE_HISTOGRAMS; place++)
        histogram_reset(&plane->histograms.place[place]);
    (void)pthread_mutex_unlock(&plane->mutex);
}
