/*
 * settings.c: the settings that can change while the plane runs.
 *
 * One immutable struct holds all of them.  A change publishes another struct by swapping one
 * pointer, and a worker picks the pointer up once a round.  A worker announces which struct it
 * uses (settings_held), so a change frees every older struct that no worker has announced.  Thus
 * at most one struct a worker is kept besides the present one.
 *
 * To add a setting: a line in oort_plane_settings, and a line in Python's plane_settings().
 */
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "plane/plane.h"

struct shared_settings {
    oort_plane_settings values;
    struct shared_settings *next; /* of the retired ones */
};

static struct shared_settings *copy(const oort_plane_settings *settings)
{
    struct shared_settings *shared = malloc(sizeof *shared);
    if (shared != NULL)
        *shared = (struct shared_settings){.values = *settings};
    return shared;
}

int32_t settings_open(oort_dataplane *plane, const oort_plane_settings *settings, oort_error *error)
{
    struct shared_settings *first = copy(settings);
    if (first == NULL)
        return oort_fail(error, OORT_ERR_NOMEM, 0, "no memory for the data plane's settings");
    atomic_store(&plane->settings, first);
    return OORT_OK;
}

void settings_pick_up(struct worker *worker)
{
    struct shared_settings *present = atomic_load(&worker->plane->settings);

    /* The announcement counts only if the struct is still the present one afterwards: a change may
     * have freed it before. */
    while (present != atomic_load_explicit(&worker->settings_held, memory_order_relaxed)) {
        atomic_store(&worker->settings_held, present);
        present = atomic_load(&worker->plane->settings);
    }
    worker->settings = &present->values;
}

static bool is_held(oort_dataplane *plane, const struct shared_settings *settings)
{
    for (uint32_t i = 0; i < plane->worker_count; i++)
        if (atomic_load(&plane->workers[i].settings_held) == settings)
            return true;
    return false;
}

static void free_retired(oort_dataplane *plane)
{
    struct shared_settings **place = &plane->settings_retired;
    uint32_t kept = 0;

    while (*place != NULL) {
        struct shared_settings *settings = *place;
        if (is_held(plane, settings)) {
            kept++;
            place = &settings->next;
        } else {
            *place = settings->next;
            free(settings);
        }
    }
    OORT_ASSERT(kept <= plane->worker_count, "a worker holds at most one struct of settings");
}

int32_t oort_dataplane_configure(oort_dataplane *plane, const oort_plane_settings *settings)
{
    struct shared_settings *fresh = copy(settings);
    if (fresh == NULL)
        return OORT_ERR_NOMEM;
    (void)pthread_mutex_lock(&plane->mutex);
    struct shared_settings *old = atomic_exchange(&plane->settings, fresh);
    old->next = plane->settings_retired;
    plane->settings_retired = old;
    free_retired(plane);
    (void)pthread_mutex_unlock(&plane->mutex);
    /* A worker without any traffic has no timer for an idle timeout that is set now. */
    for (uint32_t i = 0; i < plane->worker_count; i++)
        worker_nudge(&plane->workers[i]);
    return OORT_OK;
}

void settings_close(oort_dataplane *plane)
{
    for (uint32_t i = 0; i < plane->worker_count; i++)
        atomic_store(&plane->workers[i].settings_held, NULL);
    free_retired(plane);
    OORT_ASSERT(plane->settings_retired == NULL, "a closing plane's workers hold no settings");
    free(atomic_load(&plane->settings));
}
