/*
 * stats.c: what the persistent store measures for the operator: sizes, states, messages, and whether
 * the disk keeps up.  The values are read one by one while other threads change them: each is
 * correct, but they are of slightly different moments.
 */
#include "store/valuestore.h"

static struct valuestore *store_of(oort_store *store)
{
    return (struct valuestore *)(void *)store;
}

void valuestore_measure(oort_store *base, struct store_reading *out)
{
    struct valuestore *store = store_of(base);
    struct checkpoint *checkpoint = store->checkpoint;
    for (int i = 0; i < OORT_DATABASES; i++) {
        int64_t keys = atomic_load(&checkpoint->keys[i]);
        out->keys[i] = keys > 0 ? (uint64_t)keys : 0;
    }
    (void)pthread_mutex_lock(&store->log.mutex);
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load_explicit(&store->log.table[number],
                                                       memory_order_relaxed);
        if (segment == NULL)
            continue;
        out->segments++;
        out->log_bytes += atomic_load(&segment->tail);
        int64_t live = atomic_load_explicit(&checkpoint->live_bytes[number], memory_order_relaxed);
        out->live_bytes += live > 0 ? (uint64_t)live : 0;
    }
    (void)pthread_mutex_unlock(&store->log.mutex);
    out->index_bytes = index_file_bytes(store->index);
    out->syncs = atomic_load(&store->log.rounds);
    out->unsynced_bytes = vlog_unsynced(&store->log);
    out->free_bytes = atomic_load(&store->free_bytes);
    out->last_sync_ms = (uint64_t)atomic_load(&store->log.last_sync_ms);
    out->read_only = atomic_load(&store->read_only) ? 1 : 0;
    out->failed = (uint64_t)-atomic_load(&store->log.failed);
    out->compacting = atomic_load(&store->compacting) ? 1 : 0;
}

int32_t valuestore_next_event(oort_store *base, oort_event *out)
{
    return events_next(&store_of(base)->events, out);
}

int valuestore_event_fd(oort_store *base)
{
    return store_of(base)->events.fd;
}

int32_t valuestore_behind(oort_store *base)
{
    return atomic_load_explicit(&store_of(base)->behind, memory_order_relaxed) ? 1 : 0;
}
