/*
 * metrics.c: the public descriptions of the metrics, from the rows of metrics.def.
 */
#include "base/metrics.h"

enum { METRIC_KIND_COUNTER, METRIC_KIND_TOTAL, METRIC_KIND_GAUGE };

#define METRIC_LABEL_NONE ""
#define METRIC_LABEL_DATABASE "database"
#define METRIC_LABEL_CODE "code"

#define METRIC_ROW(metric_kind, metric_name, metric_unit, metric_label, metric_section,            \
                   metric_field, metric_help, metric_place, metric_values)                         \
    {                                                                                              \
        .name = metric_name,                                                                       \
        .unit = metric_unit,                                                                       \
        .label = metric_label,                                                                     \
        .section = metric_section,                                                                 \
        .field = metric_field,                                                                     \
        .help = metric_help,                                                                       \
        .kind = METRIC_KIND_##metric_kind == METRIC_KIND_GAUGE ? OORT_GAUGE : OORT_COUNTER,        \
        .resets = METRIC_KIND_##metric_kind == METRIC_KIND_COUNTER,                                \
        .place = metric_place,                                                                     \
        .values = metric_values,                                                                   \
    },
#define METRIC_HISTOGRAM_ROW(metric_name, metric_label, metric_section, metric_field, metric_help, \
                             metric_place)                                                         \
    {                                                                                              \
        .name = metric_name,                                                                       \
        .unit = "microseconds",                                                                    \
        .label = metric_label,                                                                     \
        .section = metric_section,                                                                 \
        .field = metric_field,                                                                     \
        .help = metric_help,                                                                       \
        .kind = OORT_HISTOGRAM,                                                                    \
        .resets = 1,                                                                               \
        .place = metric_place,                                                                     \
        .values = 0,                                                                               \
    },

static const oort_metric store_rows[] = {
#define STORE_METRIC(kind, identifier, name, unit, label, section, field, help)                    \
    METRIC_ROW(kind, name, unit, METRIC_LABEL_##label, section, field, help,                       \
               STORE_PLACE_##identifier, METRIC_VALUES_##label)
#define STORE_HISTOGRAM(identifier, name, section, field, help)                                    \
    METRIC_HISTOGRAM_ROW(name, "", section, field, help, STORE_HISTOGRAM_##identifier)
#include "base/metrics.def"
};

static const oort_metric plane_rows[] = {
#define PLANE_METRIC(kind, identifier, name, unit, label, section, field, help)                    \
    METRIC_ROW(kind, name, unit, METRIC_LABEL_##label, section, field, help,                       \
               PLANE_PLACE_##identifier, METRIC_VALUES_##label)
#define PLANE_HISTOGRAM(identifier, name, section, field, help)                                    \
    METRIC_HISTOGRAM_ROW(name, "", section, field, help, PLANE_HISTOGRAM_##identifier)
#include "base/metrics.def"
};

static const oort_metric command_rows[] = {
#define COMMAND_METRIC(kind, identifier, name, unit, section, field, help)                         \
    METRIC_ROW(kind, name, unit, "command", section, field, help, COMMAND_PLACE_##identifier, 1)
#define COMMAND_HISTOGRAM(identifier, name, section, field, help)                                  \
    METRIC_HISTOGRAM_ROW(name, "command", section, field, help, COMMAND_HISTOGRAM_##identifier)
#include "base/metrics.def"
};

static const oort_metric process_rows[] = {
#define PROCESS_METRIC(kind, identifier, name, unit, section, field, help)                         \
    METRIC_ROW(kind, name, unit, "", section, field, help, 0, 1)
#include "base/metrics.def"
};

static const struct {
    const oort_metric *rows;
    uint32_t count, places;
} owners[] = {
    [OORT_METRICS_STORE] = {store_rows, sizeof store_rows / sizeof *store_rows, STORE_PLACES},
    [OORT_METRICS_PLANE] = {plane_rows, sizeof plane_rows / sizeof *plane_rows, PLANE_PLACES},
    [OORT_METRICS_COMMAND] = {command_rows, sizeof command_rows / sizeof *command_rows,
                              COMMAND_PLACES},
    [OORT_METRICS_PROCESS] = {process_rows, sizeof process_rows / sizeof *process_rows, 0},
};

const oort_metric *oort_metric_at(int32_t owner, uint32_t number)
{
    if (owner < 0 || owner >= (int32_t)(sizeof owners / sizeof *owners) ||
        number >= owners[owner].count)
        return NULL;
    return &owners[owner].rows[number];
}

uint32_t oort_metric_places(int32_t owner)
{
    if (owner < 0 || owner >= (int32_t)(sizeof owners / sizeof *owners))
        return 0;
    return owners[owner].places;
}
