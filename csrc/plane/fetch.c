/*
 * fetch.c: threads that block on the disk, so that the workers do not.
 *
 * There are at most FETCHER_THREADS.  A thread is started when it is first needed.  The queue
 * needs no memory, because a connection waits for one record at a time and is its own job.  The
 * end of a job is posted to the connection's worker.
 */
#include "plane/plane.h"

#include <string.h>

#include "base/clock.h"

#define FETCHER_THREADS 2u

static void *fetch_loop(void *context)
{
    struct fetcher *fetcher = context;

    (void)pthread_mutex_lock(&fetcher->mutex);
    for (;;) {
        while (fetcher->first == NULL && !fetcher->stop) {
            fetcher->sleeping++;
            (void)pthread_cond_wait(&fetcher->cond, &fetcher->mutex);
            fetcher->sleeping--;
        }
        if (fetcher->stop)
            break;
        struct conn *conn = fetcher->first;
        fetcher->first = conn->fetch_next;
        (void)pthread_mutex_unlock(&fetcher->mutex);
        int64_t began_ns = clock_monotonic_ns();
        conn->fetch_status = oort_fetch(fetcher->store, conn->cold);
        uint64_t took_ns = (uint64_t)(clock_monotonic_ns() - began_ns);
        histogram_add(fetcher->time, took_ns, 1, took_ns);
        worker_post(conn->worker, &conn->fetch_mail);
        (void)pthread_mutex_lock(&fetcher->mutex);
    }
    (void)pthread_mutex_unlock(&fetcher->mutex);
    return NULL;
}

int32_t fetcher_open(struct fetcher *fetcher, oort_store *store, struct histogram *time,
                     oort_error *error)
{
    int failed;

    memset(fetcher, 0, sizeof *fetcher);
    fetcher->store = store;
    fetcher->time = time;
    failed = pthread_mutex_init(&fetcher->mutex, NULL);
    if (failed != 0 || (failed = pthread_cond_init(&fetcher->cond, NULL)) != 0) {
        error->code = OORT_ERR_NOMEM;
        error->sys_errno = failed;
        return OORT_ERR_NOMEM;
    }
    return OORT_OK;
}

bool fetcher_submit(struct fetcher *fetcher, struct conn *conn)
{
    bool accepted;

    conn->fetch_next = NULL;
    (void)pthread_mutex_lock(&fetcher->mutex);
    if (fetcher->sleeping == 0 && fetcher->threads < FETCHER_THREADS &&
        pthread_create(&fetcher->thread[fetcher->threads], NULL, fetch_loop, fetcher) == 0)
        fetcher->threads++;
    accepted = fetcher->threads > 0;
    if (accepted) {
        if (fetcher->first == NULL)
            fetcher->first = conn;
        else
            fetcher->last->fetch_next = conn;
        fetcher->last = conn;
        (void)pthread_cond_signal(&fetcher->cond);
    }
    (void)pthread_mutex_unlock(&fetcher->mutex);
    return accepted;
}

void fetcher_close(struct fetcher *fetcher)
{
    (void)pthread_mutex_lock(&fetcher->mutex);
    fetcher->stop = true;
    (void)pthread_cond_broadcast(&fetcher->cond);
    (void)pthread_mutex_unlock(&fetcher->mutex);
    for (uint32_t i = 0; i < fetcher->threads; i++)
        (void)pthread_join(fetcher->thread[i], NULL);
    while (fetcher->first != NULL) {
        struct conn *conn = fetcher->first;
        fetcher->first = conn->fetch_next;
        conn->fetch_status = OORT_ERR_FAILED;
        worker_post(conn->worker, &conn->fetch_mail);
    }
    (void)pthread_cond_destroy(&fetcher->cond);
    (void)pthread_mutex_destroy(&fetcher->mutex);
}
