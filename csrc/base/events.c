/*
 * events.c: the bounded queue of messages for the operator.  See events.h.
 */
#include "base/events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"

int32_t events_open(struct events *events, oort_error *error)
{
    memset(events, 0, sizeof *events);
    events->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (events->fd < 0)
        return oort_fail(error, OORT_ERR_IO, errno, "cannot make an eventfd: %s", strerror(errno));
    (void)pthread_mutex_init(&events->mutex, NULL);
    return OORT_OK;
}

void events_close(struct events *events)
{
    (void)close(events->fd);
    (void)pthread_mutex_destroy(&events->mutex);
}

void events_post(struct events *events, int32_t level, int32_t kind, uint64_t segment,
                 const char *format, ...)
{
    (void)pthread_mutex_lock(&events->mutex);
    if (events->count == EVENT_QUEUE) {
        events->dropped++;
    } else {
        oort_event *event = &events->queue[(events->first + events->count++) % EVENT_QUEUE];
        va_list arguments;
        event->level = level;
        event->kind = kind;
        event->segment = segment;
        va_start(arguments, format);
        int used = vsnprintf(event->text, sizeof event->text, format, arguments);
        va_end(arguments);
        if (events->dropped != 0 && used >= 0 && (size_t)used < sizeof event->text) {
            (void)snprintf(event->text + used, sizeof event->text - (size_t)used,
                           " (%u earlier messages were dropped)", events->dropped);
            events->dropped = 0;
        }
        uint64_t one = 1;
        (void)!write(events->fd, &one, sizeof one);
    }
    (void)pthread_mutex_unlock(&events->mutex);
}

int32_t events_next(struct events *events, oort_event *out)
{
    int32_t found = 0;
    (void)pthread_mutex_lock(&events->mutex);
    if (events->count != 0) {
        *out = events->queue[events->first];
        events->first = (events->first + 1) % EVENT_QUEUE;
        events->count--;
        found = 1;
    }
    if (events->count == 0) {
        uint64_t drained;
        (void)!read(events->fd, &drained, sizeof drained);
    }
    (void)pthread_mutex_unlock(&events->mutex);
    return found;
}
