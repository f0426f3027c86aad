/*
 * test_index.c: the index against a plain array: random churn, reopening, equal tags, one hot slot,
 * scans, a full disk, and a process killed in the middle of a change.
 *
 * Key i of a model has a fixed hash and, while present, a location that no other key has.
 */
#include "index/index.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define KEY_BITS 23 /* a location consists of version and key number */
#define RESERVE (UINT64_C(4) << 30)

typedef struct model_key {
    uint64_t hash;
    uint64_t location; /* 0: absent */
    uint64_t stamp;
    uint8_t database;
} model_key;

typedef struct model {
    model_key *keys;
    uint32_t count;
} model;

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t next_random(uint64_t *state)
{
    return mix((*state)++);
}

static uint64_t slot_and_tag(uint32_t slot, uint32_t tag)
{
    return (uint64_t)slot << 50 | (uint64_t)tag << 26;
}

static model model_make(uint32_t count)
{
    model m = {calloc(count, sizeof *m.keys), count};
    CHECK(m.keys != NULL);
    return m;
}

/* Finds the key.  False: the index does not have it as the model does. */
static bool find_key(oort_index *index, const model_key *key, index_cursor *at)
{
    index_entry entry;
    index_seek(index, key->hash, key->database, at);
    while (index_next(index, at, &entry)) {
        CHECK(index_tag(entry) == index_hash_tag(key->hash));
        CHECK(index_database(entry) == key->database);
        if (index_location(entry) == key->location)
            return index_stamp(entry) == key->stamp;
    }
    return false;
}

static int count_entry(void *context, uint32_t slot, index_entry entry)
{
    (void)slot;
    (void)entry;
    ++*(uint64_t *)context;
    return INDEX_KEEP;
}

static int erase_entry(void *context, uint32_t slot, index_entry entry)
{
    (void)context;
    (void)slot;
    (void)entry;
    return INDEX_ERASE;
}

static uint64_t count_entries(oort_index *index)
{
    uint64_t count = 0;
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++)
        index_visit_slot(index, slot, count_entry, &count);
    return count;
}

static void check_equal(oort_index *index, const model *m)
{
    uint64_t present = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        index_cursor at;
        if (m->keys[i].location == 0)
            continue;
        CHECK(find_key(index, &m->keys[i], &at));
        present++;
    }
    CHECK(count_entries(index) == present);
}

static void put_key(oort_index *index, model_key *key, uint32_t number, uint64_t stamp)
{
    uint64_t location = ((key->location >> KEY_BITS) + 1) % 1000 << KEY_BITS | (number + 1);
    index_cursor at;
    if (key->location != 0) {
        CHECK(find_key(index, key, &at));
        index_replace(index, &at, location, stamp);
    } else {
        CHECK(index_insert(index, key->hash, key->database, location, stamp) == OORT_OK);
    }
    key->location = location;
    key->stamp = stamp;
}

static void remove_key(oort_index *index, model_key *key)
{
    index_cursor at;
    if (key->location == 0)
        return;
    CHECK(find_key(index, key, &at));
    index_erase(index, &at);
    key->location = 0;
    CHECK(!find_key(index, key, &at));
}

/* Random steps: put_percent of them put a key, the others remove one. */
static void churn(oort_index *index, model *m, uint64_t *state, uint32_t steps,
                  uint32_t put_percent)
{
    for (uint32_t i = 0; i < steps; i++) {
        uint64_t dice = next_random(state);
        uint32_t number = (uint32_t)(dice >> 32) % m->count;
        if (dice % 100 < put_percent)
            put_key(index, &m->keys[number], number, dice >> 5);
        else
            remove_key(index, &m->keys[number]);
    }
}

/* Scans a slot in small and large steps: returns all entries, in order, equal tags together. */
static uint64_t scan_slot(oort_index *index, uint32_t slot, uint32_t capacity)
{
    index_entry *entries = calloc(capacity, sizeof *entries);
    uint64_t total = 0;
    uint32_t tag = 0, count = 0, last = 0;
    CHECK(entries != NULL);
    while (tag != INDEX_SLOT_END) {
        uint32_t next;
        int32_t status = index_scan_slot(index, slot, tag, entries, capacity, &count, &next);
        if (status == OORT_ERR_TOO_BIG) {
            CHECK(count > capacity);
            capacity = count;
            free(entries);
            entries = calloc(capacity, sizeof *entries);
            CHECK(entries != NULL);
            continue;
        }
        CHECK(status == OORT_OK);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t seen = index_tag(entries[i]);
            CHECK(seen >= tag && seen < next);
            CHECK(seen >= last);
            last = seen;
        }
        CHECK(next > tag);
        total += count;
        tag = next;
    }
    free(entries);
    return total;
}

static oort_index *reopen(oort_index *index, const char *path)
{
    oort_error error = {0};
    CHECK(index_close(index, false, &error) == OORT_OK);
    index = index_open(path, RESERVE, &error);
    if (index == NULL)
        fprintf(stderr, "%s\n", error.text);
    CHECK(index != NULL);
    return index;
}

static oort_index *create(const char *path)
{
    oort_error error = {0};
    oort_index *index = index_create(path, RESERVE, &error);
    if (index == NULL)
        fprintf(stderr, "%s\n", error.text);
    CHECK(index != NULL);
    return index;
}

/* Sets of keys that reach every structure: spread over all slots, one slot, few tags, tags with
 * long common prefixes. */
static void fill_hashes(model *m, int shape)
{
    for (uint32_t i = 0; i < m->count; i++) {
        uint64_t random = mix(i * UINT64_C(4) + (uint64_t)shape);
        uint32_t tag = (uint32_t)random & 0xffffff;
        m->keys[i].database = (uint8_t)(random >> 60 < 12 ? 0 : random >> 60);
        switch (shape) {
        case 0:
            m->keys[i].hash = random;
            break;
        case 1:
            m->keys[i].hash = slot_and_tag(7, tag);
            break;
        case 2:
            m->keys[i].hash = slot_and_tag(i % 2 * 16383, tag % 5 * 0x333333);
            break;
        default:
            m->keys[i].hash = slot_and_tag(9, 0xabc000 | (tag & (i % 3 ? 0x3 : 0xfff)));
            break;
        }
    }
}

static void test_model(const char *path)
{
    static const uint32_t SIZES[4] = {60000, 60000, 6000, 20000};
    for (int shape = 0; shape < 4; shape++) {
        uint64_t state = (uint64_t)shape * 1000;
        oort_index *index = create(path);
        model m = model_make(SIZES[shape]);
        uint64_t scanned = 0, present = 0;
        uint8_t *owner = index_owner_area(index);
        CHECK(owner[0] == 0 && owner[INDEX_OWNER_BYTES - 1] == 0);
        owner[INDEX_OWNER_BYTES - 1] = 77;
        fill_hashes(&m, shape);
        for (uint32_t i = 0; i < m.count; i++)
            index_prefetch(index, m.keys[i].hash, 1);
        churn(index, &m, &state, m.count * 2, 80);
        for (uint32_t i = 0; i < m.count; i++) {
            index_prefetch(index, m.keys[i].hash, 1);
            index_prefetch(index, m.keys[i].hash, 2);
        }
        check_equal(index, &m);
        index = reopen(index, path);
        owner = index_owner_area(index);
        CHECK(owner[INDEX_OWNER_BYTES - 1] == 77);
        check_equal(index, &m);
        churn(index, &m, &state, m.count, 30);
        for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++)
            scanned += scan_slot(index, slot, slot % 3 == 0 ? 1 : slot % 3 == 1 ? 10 : 5000);
        for (uint32_t i = 0; i < m.count; i++)
            present += m.keys[i].location != 0;
        CHECK(scanned == present);
        index = reopen(index, path);
        check_equal(index, &m);
        churn(index, &m, &state, m.count, 5);
        check_equal(index, &m);
        for (uint32_t i = 0; i < m.count; i++)
            remove_key(index, &m.keys[i]);
        CHECK(count_entries(index) == 0);
        index = reopen(index, path);
        check_equal(index, &m);
        CHECK(index_close(index, true, NULL) == OORT_OK);
        free(m.keys);
    }
}

/* Freed space is used again, so the file does not grow from round to round. */
static void test_space(const char *path)
{
    oort_index *index = create(path);
    uint64_t empty = index_file_bytes(index), full = 0;
    model m = model_make(200000);
    fill_hashes(&m, 0);
    for (int round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < m.count; i++)
            put_key(index, &m.keys[i], i, 1);
        if (round == 0)
            full = index_file_bytes(index);
        CHECK(index_file_bytes(index) <= full + full / 20);
        if (round == 2) {
            CHECK(index_clear(index, NULL) == OORT_OK);
            CHECK(index_file_bytes(index) == empty);
            CHECK(count_entries(index) == 0);
            index = reopen(index, path);
        } else {
            for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++)
                index_visit_slot(index, slot, erase_entry, NULL);
        }
        for (uint32_t i = 0; i < m.count; i++)
            m.keys[i].location = 0;
    }
    CHECK(index_close(index, false, NULL) == OORT_OK);
    free(m.keys);
}

static void test_hot_slot(const char *path)
{
    oort_index *index = create(path);
    model m = model_make(2000000);
    fill_hashes(&m, 1);
    for (uint32_t i = 0; i < m.count; i++)
        put_key(index, &m.keys[i], i, i);
    CHECK(index_file_bytes(index) < UINT64_C(24) * m.count);
    index = reopen(index, path);
    check_equal(index, &m);
    CHECK(scan_slot(index, 7, 4096) == m.count);
    CHECK(index_close(index, false, NULL) == OORT_OK);
    free(m.keys);
}

/* The kernel does not let the file grow.  The index reports that and stays usable. */
static void test_full_disk(const char *path)
{
    struct rlimit old, low;
    oort_index *index = create(path);
    model m = model_make(400000);
    uint32_t i;
    int32_t status = OORT_OK;
    fill_hashes(&m, 0);
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    low = old;
    low.rlim_cur = 4 << 20;
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0);
    for (i = 0; i < m.count; i++) {
        status = index_insert(index, m.keys[i].hash, m.keys[i].database, i + 1, i);
        if (status != OORT_OK)
            break;
        m.keys[i].location = i + 1;
        m.keys[i].stamp = i;
    }
    CHECK(status == OORT_ERR_FULL);
    CHECK(index_file_bytes(index) <= 4 << 20);
    check_equal(index, &m);
    for (uint32_t k = 0; k < i; k += 2)
        remove_key(index, &m.keys[k]);
    for (uint32_t k = 0; k < i / 4; k++)
        put_key(index, &m.keys[k], k, k);
    check_equal(index, &m);
    index = reopen(index, path);
    check_equal(index, &m);
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    for (i = 0; i < m.count; i++)
        put_key(index, &m.keys[i], i, i);
    check_equal(index, &m);
    CHECK(index_close(index, false, NULL) == OORT_OK);
    free(m.keys);
}

static void test_refused_files(const char *path)
{
    static const char *const TEXTS[3] = {"", "not an index", "OORTINDX"};
    oort_error error;
    oort_index *index;
    FILE *file;
    for (int i = 0; i < 3; i++) {
        file = fopen(path, "w");
        CHECK(file != NULL && fputs(TEXTS[i], file) >= 0 && fclose(file) == 0);
        CHECK(index_open(path, RESERVE, &error) == NULL && error.code == OORT_ERR_DAMAGED);
    }
    CHECK(unlink(path) == 0);
    CHECK(index_open(path, RESERVE, &error) == NULL && error.sys_errno == ENOENT);
    index = create(path);
    CHECK(index_insert(index, slot_and_tag(3, 1), 0, 1, 1) == OORT_OK);
    CHECK(index_insert(index, slot_and_tag(4, 1), 0, 2, 1) == OORT_OK);
    CHECK(index_insert(index, 0, 0, 0, 1) == OORT_ERR_ARGUMENT);
    CHECK(index_insert(index, 0, 0, UINT64_C(1) << 40, 1) == OORT_ERR_ARGUMENT);
    {
        /* Two slots share a bucket.  The directory follows the owner's bytes. */
        uint64_t *directory = (void *)((uint8_t *)index_owner_area(index) + INDEX_OWNER_BYTES);
        directory[4] = directory[3];
    }
    CHECK(index_close(index, false, NULL) == OORT_OK);
    CHECK(index_open(path, RESERVE, &error) == NULL && error.code == OORT_ERR_DAMAGED);
}

/* The child's record of each key, in memory that outlives the child. */
typedef struct journal_key {
    uint64_t doing; /* the location being put, or 0: being removed */
    uint64_t done;  /* the last acknowledged location, 0: none */
    uint64_t busy;  /* 1: between doing and done */
} journal_key;

#define KILL_KEYS 40000u

static uint64_t kill_hash(uint32_t i)
{
    /* Most keys are in one slot, so splits are frequent.  Some have the same tag.  The rest is
     * spread. */
    uint64_t random = mix(i);
    if (i % 8 == 0)
        return random;
    return slot_and_tag(5, i % 8 == 1 ? 0x123456 : (uint32_t)random & 0xffffff);
}

static bool find_location(oort_index *index, uint64_t hash, uint64_t location, index_cursor *at)
{
    index_entry entry;
    index_seek(index, hash, 0, at);
    while (index_next(index, at, &entry))
        if (index_location(entry) == location)
            return true;
    return false;
}

static void run_child(const char *path, journal_key *journal, uint64_t seed)
{
    oort_index *index = index_open(path, RESERVE, NULL);
    if (index == NULL)
        _exit(1);
    for (uint64_t step = 0;; step++) {
        uint64_t dice = next_random(&seed);
        uint32_t i = (uint32_t)(dice >> 32) % KILL_KEYS;
        /* Long phases of mostly putting or mostly removing make buckets split and vanish. */
        bool putting = dice % 100 < (step >> 15 & 1 ? 15u : 85u);
        index_cursor at;
        bool there = journal[i].done != 0;
        if (!putting && !there)
            continue;
        if (i % 8 == 1 && i > 16000)
            continue;
        journal[i].doing = putting ? (step % 1000 + 1) << KEY_BITS | i : 0;
        __atomic_store_n(&journal[i].busy, 1, __ATOMIC_RELEASE);
        if (there && !find_location(index, kill_hash(i), journal[i].done, &at))
            _exit(2);
        if (!putting)
            index_erase(index, &at);
        else if (there)
            index_replace(index, &at, journal[i].doing, step);
        else if (index_insert(index, kill_hash(i), 0, journal[i].doing, step) != OORT_OK)
            _exit(3);
        __atomic_store_n(&journal[i].done, journal[i].doing, __ATOMIC_RELEASE);
        __atomic_store_n(&journal[i].busy, 0, __ATOMIC_RELEASE);
    }
}

/* Every acknowledged state is there exactly once.  A key with a change in progress is in its old or
 * new state. */
static void check_journal(oort_index *index, journal_key *journal)
{
    uint64_t present = 0;
    uint32_t busy = 0;
    for (uint32_t i = 0; i < KILL_KEYS; i++) {
        index_cursor at;
        if (journal[i].busy != 0) {
            busy++;
            if (journal[i].done == 0 || !find_location(index, kill_hash(i), journal[i].done, &at)) {
                bool there = journal[i].doing != 0 &&
                             find_location(index, kill_hash(i), journal[i].doing, &at);
                CHECK(there || journal[i].done == 0 || journal[i].doing == 0);
                journal[i].done = there ? journal[i].doing : 0;
            }
            journal[i].busy = 0;
        }
        if (journal[i].done == 0)
            continue;
        CHECK(find_location(index, kill_hash(i), journal[i].done, &at));
        present++;
    }
    CHECK(busy <= 1);
    CHECK(count_entries(index) == present);
}

static void test_kill(const char *path)
{
    journal_key *journal = mmap(NULL, KILL_KEYS * sizeof *journal, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t state = (uint64_t)time(NULL);
    CHECK(journal != MAP_FAILED);
    CHECK(index_close(create(path), false, NULL) == OORT_OK);
    for (int round = 0; round < 40; round++) {
        struct timespec pause = {0, (long)(next_random(&state) % 20000000) + 1000000};
        oort_index *index;
        oort_error error;
        int result;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            run_child(path, journal, next_random(&state));
        (void)nanosleep(&pause, NULL);
        CHECK(kill(child, SIGKILL) == 0);
        CHECK(waitpid(child, &result, 0) == child);
        CHECK(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
        index = index_open(path, RESERVE, &error);
        CHECK(index != NULL);
        check_journal(index, journal);
        CHECK(index_close(index, false, NULL) == OORT_OK);
    }
    CHECK(munmap(journal, KILL_KEYS * sizeof *journal) == 0);
}

int main(void)
{
    const char *root = getenv("TMPDIR");
    char directory[256], path[300];
    int length = snprintf(directory, sizeof directory, "%s/oort-index-XXXXXX",
                          root == NULL ? "/tmp" : root);
    CHECK(length > 0 && (size_t)length < sizeof directory && mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof path, "%s/index", directory);
    test_refused_files(path);
    test_model(path);
    test_space(path);
    test_full_disk(path);
    test_kill(path);
    test_hot_slot(path);
    CHECK(unlink(path) == 0 && rmdir(directory) == 0);
    return 0;
}
