/*
 * metrics.c: the data plane's figures: the workers' counters, summed when asked.
 *
 * Each counter has one writer, so a reset cannot write them: it remembers where
 * they stood, and later answers are counted from there.
 */
#include <string.h>

#include "plane/plane.h"

/* What can stand at the beginning of an error; anything else counts as the first. */
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

static void sum_errors(oort_dataplane *plane, uint64_t *out)
{
    memset(out, 0, OORT_ERROR_CODES * sizeof *out);
    for (uint32_t i = 0; i < plane->worker_count; i++)
        for (uint32_t code = 0; code < OORT_ERROR_CODES; code++)
            out[code] += shown_get(&plane->workers[i].stats.errors[code]);
}

void oort_dataplane_get_error_stats(oort_dataplane *plane, uint64_t *out)
{
    (void)pthread_mutex_lock(&plane->mutex);
    sum_errors(plane, out);
    for (uint32_t code = 0; code < OORT_ERROR_CODES; code++)
        out[code] -= plane->error_base[code];
    (void)pthread_mutex_unlock(&plane->mutex);
}

static void sum(oort_dataplane *plane, oort_dataplane_stats *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < plane->worker_count; i++) {
        struct worker_stats *stats = &plane->workers[i].stats;
        out->commands += shown_get(&stats->commands);
        out->bytes_in += shown_get(&stats->bytes_in);
        out->bytes_out += shown_get(&stats->bytes_out);
        out->hits += shown_get(&stats->hits);
        out->misses += shown_get(&stats->misses);
        out->protocol_errors += shown_get(&stats->protocol_errors);
        out->dropped_slow += shown_get(&stats->dropped_slow);
        out->dropped_idle += shown_get(&stats->dropped_idle);
        out->dropped_query += shown_get(&stats->dropped_query);
        out->cold_reads += shown_get(&stats->cold_reads);
        out->waiting_sync += shown_get(&stats->waiting_sync);
    }
}

void oort_dataplane_get_stats(oort_dataplane *plane, oort_dataplane_stats *out)
{
    (void)pthread_mutex_lock(&plane->mutex);
    const oort_dataplane_stats *base = &plane->stats_base;
    sum(plane, out);
    out->connections = plane->live_count;
    out->commands -= base->commands;
    out->bytes_in -= base->bytes_in;
    out->bytes_out -= base->bytes_out;
    out->hits -= base->hits;
    out->misses -= base->misses;
    out->protocol_errors -= base->protocol_errors;
    out->dropped_slow -= base->dropped_slow;
    out->dropped_idle -= base->dropped_idle;
    out->dropped_query -= base->dropped_query;
    out->cold_reads -= base->cold_reads;
    (void)pthread_mutex_unlock(&plane->mutex);
}

static oort_command_stats sum_command(oort_dataplane *plane, uint32_t command)
{
    oort_command_stats out = {0};
    for (uint32_t i = 0; i < plane->worker_count; i++) {
        struct worker_command_stats *stats = &plane->workers[i].commands[command];
        out.calls += shown_get(&stats->calls);
        out.failed += shown_get(&stats->failed);
        out.rejected += shown_get(&stats->rejected);
        out.nanoseconds += shown_get(&stats->nanoseconds);
    }
    return out;
}

void oort_dataplane_get_command_stats(oort_dataplane *plane, oort_command_stats *out)
{
    (void)pthread_mutex_lock(&plane->mutex);
    for (uint32_t i = 0; i < oort_command_count(); i++) {
        out[i] = sum_command(plane, i);
        out[i].calls -= plane->command_base[i].calls;
        out[i].failed -= plane->command_base[i].failed;
        out[i].rejected -= plane->command_base[i].rejected;
        out[i].nanoseconds -= plane->command_base[i].nanoseconds;
    }
    (void)pthread_mutex_unlock(&plane->mutex);
}

void oort_dataplane_reset_stats(oort_dataplane *plane)
{
    (void)pthread_mutex_lock(&plane->mutex);
    sum(plane, &plane->stats_base);
    sum_errors(plane, plane->error_base);
    for (uint32_t i = 0; i < oort_command_count(); i++)
        plane->command_base[i] = sum_command(plane, i);
    (void)pthread_mutex_unlock(&plane->mutex);
}
