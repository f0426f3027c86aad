/*
 * test_index_threads.c: two threads change their own slots, share the allocator, and prefetch from
 * each other's slots without a lock, as the index allows.  For the thread sanitizer.
 */
#include "index/index.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define KEYS 20000u
#define ROUNDS 6u
#define THREADS 2u

typedef struct job {
    oort_index *index;
    uint32_t number;
} job;

/* Even keys have even slots.  There are few slots, so buckets grow, split and shrink. */
static uint64_t hash_of(uint32_t key)
{
    uint64_t random = key * UINT64_C(0x9e3779b97f4a7c15);
    return (uint64_t)((random >> 60) / 2 * 2 + key % THREADS) << 50 | (random >> 14);
}

static bool find(oort_index *index, uint32_t key, index_cursor *at)
{
    index_entry entry;
    index_seek(index, hash_of(key), 0, at);
    while (index_next(index, at, &entry))
        if (index_location(entry) == key + 1)
            return true;
    return false;
}

static void *run(void *argument)
{
    const job *own = argument;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t key = own->number; key < KEYS; key += THREADS) {
            uint64_t other = hash_of((key * 7 + 1) % KEYS);
            index_cursor at;
            index_prefetch(own->index, other, 1);
            index_prefetch(own->index, other, 2);
            if (round % 2 == 0) {
                CHECK(!find(own->index, key, &at));
                CHECK(index_insert(own->index, hash_of(key), 0, key + 1, round) == OORT_OK);
            } else {
                CHECK(find(own->index, key, &at));
                index_erase(own->index, &at);
            }
        }
    }
    return NULL;
}

static int refuse(void *context, uint32_t slot, index_entry entry)
{
    (void)slot;
    (void)entry;
    *(bool *)context = true;
    return INDEX_STOP;
}

int main(void)
{
    const char *root = getenv("TMPDIR");
    char directory[256], path[300];
    pthread_t threads[THREADS];
    job jobs[THREADS];
    oort_error error;
    oort_index *index;
    bool left = false;
    int length = snprintf(directory, sizeof directory, "%s/oort-index-XXXXXX",
                          root == NULL ? "/tmp" : root);
    CHECK(length > 0 && (size_t)length < sizeof directory && mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof path, "%s/index", directory);
    index = index_create(path, UINT64_C(64) << 20, &error);
    CHECK(index != NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        jobs[i] = (job){index, i};
        CHECK(pthread_create(&threads[i], NULL, run, &jobs[i]) == 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++)
        index_visit_slot(index, slot, refuse, &left);
    CHECK(!left);
    CHECK(index_close(index, false, &error) == OORT_OK);
    index = index_open(path, UINT64_C(64) << 20, &error);
    CHECK(index != NULL);
    CHECK(index_close(index, false, &error) == OORT_OK);
    CHECK(unlink(path) == 0 && rmdir(directory) == 0);
    return 0;
}
