/*
 * metrics.h: what the rows of metrics.def make in C: the counters that the owners add to, and the
 * readings that are made of them.
 *
 * A struct of metrics has a field for each counter and gauge, and is an array (place) at the same
 * time, so that summing, resetting and reading need no row's name.  A reading has the same places
 * without atomics: its array is the one of the public calls.
 */
#ifndef OORT_METRICS_H
#define OORT_METRICS_H

#include <stdatomic.h>

#include "base/histogram.h"
#include "oort.h"

/* ---- counters and gauges: places, counters, readings ------------------------------------------- */

enum {
    METRIC_VALUES_NONE = 1,
    METRIC_VALUES_DATABASE = OORT_DATABASES,
    METRIC_VALUES_CODE = OORT_ERROR_CODES
};

#define METRIC_FIELD_NONE(type, identifier) type identifier;
#define METRIC_FIELD_DATABASE(type, identifier) type identifier[METRIC_VALUES_DATABASE];
#define METRIC_FIELD_CODE(type, identifier) type identifier[METRIC_VALUES_CODE];

/* Where a row's values begin.  The next row's begin after its last. */
enum store_place {
#define STORE_METRIC(kind, identifier, name, unit, label, ...)                                     \
    STORE_PLACE_##identifier,                                                                      \
        STORE_LAST_##identifier = STORE_PLACE_##identifier + METRIC_VALUES_##label - 1,
#include "base/metrics.def"
    STORE_PLACES
};
enum plane_place {
#define PLANE_METRIC(kind, identifier, name, unit, label, ...)                                     \
    PLANE_PLACE_##identifier,                                                                      \
        PLANE_LAST_##identifier = PLANE_PLACE_##identifier + METRIC_VALUES_##label - 1,
#include "base/metrics.def"
    PLANE_PLACES
};
enum command_place {
#define COMMAND_METRIC(kind, identifier, ...) COMMAND_PLACE_##identifier,
#include "base/metrics.def"
    COMMAND_PLACES
};

struct store_metrics {
    union {
        struct {
#define STORE_METRIC(kind, identifier, name, unit, label, ...)                                     \
    METRIC_FIELD_##label(_Atomic uint64_t, identifier)
#include "base/metrics.def"
        };
        _Atomic uint64_t place[STORE_PLACES];
    };
};
struct store_reading {
    union {
        struct {
#define STORE_METRIC(kind, identifier, name, unit, label, ...)                                     \
    METRIC_FIELD_##label(uint64_t, identifier)
#include "base/metrics.def"
        };
        uint64_t place[STORE_PLACES];
    };
};

struct plane_metrics {
    union {
        struct {
#define PLANE_METRIC(kind, identifier, name, unit, label, ...)                                     \
    METRIC_FIELD_##label(_Atomic uint64_t, identifier)
#include "base/metrics.def"
        };
        _Atomic uint64_t place[PLANE_PLACES];
    };
};
struct plane_reading {
    union {
        struct {
#define PLANE_METRIC(kind, identifier, name, unit, label, ...)                                     \
    METRIC_FIELD_##label(uint64_t, identifier)
#include "base/metrics.def"
        };
        uint64_t place[PLANE_PLACES];
    };
};

struct command_metrics {
    union {
        struct {
#define COMMAND_METRIC(kind, identifier, ...) _Atomic uint64_t identifier;
#include "base/metrics.def"
        };
        _Atomic uint64_t place[COMMAND_PLACES];
    };
};

struct command_reading {
    uint64_t place[COMMAND_PLACES];
};

/* Every place is one number, and every field is at its place. */
_Static_assert(sizeof(struct store_metrics) == sizeof(uint64_t[STORE_PLACES]), "");
_Static_assert(sizeof(struct store_reading) == sizeof(uint64_t[STORE_PLACES]), "");
_Static_assert(sizeof(struct plane_metrics) == sizeof(uint64_t[PLANE_PLACES]), "");
_Static_assert(sizeof(struct plane_reading) == sizeof(uint64_t[PLANE_PLACES]), "");
_Static_assert(sizeof(struct command_metrics) == sizeof(uint64_t[COMMAND_PLACES]), "");
#define COMMAND_METRIC(kind, identifier, ...)                                                      \
    _Static_assert(offsetof(oort_command_stats, identifier) ==                                     \
                       sizeof(uint64_t) * COMMAND_PLACE_##identifier,                              \
                   "oort_command_stats has the fields of the rows, in their order");
#include "base/metrics.def"
_Static_assert(sizeof(oort_command_stats) == sizeof(struct command_metrics), "");

/* ---- histograms -------------------------------------------------------------------------------- */

enum store_histogram {
#define STORE_HISTOGRAM(identifier, ...) STORE_HISTOGRAM_##identifier,
#include "base/metrics.def"
    STORE_HISTOGRAMS
};
enum plane_histogram {
#define PLANE_HISTOGRAM(identifier, ...) PLANE_HISTOGRAM_##identifier,
#include "base/metrics.def"
    PLANE_HISTOGRAMS
};
enum command_histogram {
#define COMMAND_HISTOGRAM(identifier, ...) COMMAND_HISTOGRAM_##identifier,
#include "base/metrics.def"
    COMMAND_HISTOGRAMS
};

struct store_histograms {
    union {
        struct {
#define STORE_HISTOGRAM(identifier, ...) struct histogram identifier;
#include "base/metrics.def"
        };
        struct histogram place[STORE_HISTOGRAMS];
    };
};
struct plane_histograms {
    union {
        struct {
#define PLANE_HISTOGRAM(identifier, ...) struct histogram identifier;
#include "base/metrics.def"
        };
        struct histogram place[PLANE_HISTOGRAMS];
    };
};
struct command_histograms {
    union {
        struct {
#define COMMAND_HISTOGRAM(identifier, ...) struct histogram identifier;
#include "base/metrics.def"
        };
        struct histogram place[COMMAND_HISTOGRAMS];
    };
};

/* ---- counting ---------------------------------------------------------------------------------- */

/* Adds to a counter that any thread may write. */
static inline void metric_add(_Atomic uint64_t *counter, uint64_t more)
{
    (void)atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

#endif
