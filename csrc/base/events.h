/*
 * events.h: messages from the store's threads to the operator.
 *
 * The queue is bounded.  While it is full, new messages are dropped; the next message that fits
 * says how many were dropped.  Any thread may post.
 */
#ifndef OORT_EVENTS_H
#define OORT_EVENTS_H

#include <pthread.h>

#include "oort.h"

#define EVENT_QUEUE 64u

enum event_level { EVENT_ERROR = 3, EVENT_WARNING = 4, EVENT_NOTICE = 5, EVENT_INFO = 6 };

struct events {
    pthread_mutex_t mutex;
    oort_event queue[EVENT_QUEUE];
    uint32_t first, count, dropped;
    int fd; /* readable while a message waits */
};

int32_t events_open(struct events *events, oort_error *error);
void events_close(struct events *events);
/* kind: an oort_event_kind.  segment: the sequence number of the segment that the message is about,
 * or 0. */
void events_post(struct events *events, int32_t level, int32_t kind, uint64_t segment,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* 1: a message was copied to out.  0: the queue is empty. */
int32_t events_next(struct events *events, oort_event *out);

#endif
