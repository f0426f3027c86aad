/*
 * store_suite.h: shared by the tests of all stores: the list of stores, a new and empty store for
 * every test, and the public calls, each of which fetches cold records.
 */
#ifndef OORT_TESTS_STORE_SUITE_H
#define OORT_TESTS_STORE_SUITE_H

#include "base/metrics.h"
#include "oort.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define START_US INT64_C(1700000000000000)
#define START_MS (START_US / 1000)

typedef oort_store *(*opener)(const oort_store_config *, oort_error *);

typedef struct fixture {
    opener open;
    oort_store_config config;
    char directory[64];
    oort_store *store;
    oort_session *session;
} fixture;

static inline void open_store(fixture *f)
{
    oort_error error = {0};

    f->store = f->open(&f->config, &error);
    if (f->store == NULL)
        fprintf(stderr, "open: %s\n", error.text);
    CHECK(f->store != NULL);
    f->session = oort_session_open(f->store, &error);
    CHECK(f->session != NULL);
    oort_session_set_clock(f->session, START_US);
}

static inline void close_store(fixture *f)
{
    oort_session_close(f->session);
    CHECK(oort_store_close(f->store, NULL) == OORT_OK);
}

static inline void reopen_with(fixture *f, oort_store_config config)
{
    close_store(f);
    config.directory = f->directory;
    f->config = config;
    open_store(f);
}

/* ---- one call each, going to the disk when the store asks for it --------- */

static inline oort_key key_of(const void *data, size_t size, uint8_t database)
{
    oort_key key;

    oort_key_init(&key, data, size, database);
    return key;
}

static inline oort_key named(const char *name)
{
    return key_of(name, strlen(name), 0);
}

static inline void bring_in(oort_session *session, oort_store *store)
{
    oort_cold cold = oort_session_cold(session);

    oort_unlock(session);
    CHECK(oort_fetch(store, cold) == OORT_OK);
}

#define UNTIL_WARM(store, session, key, call)                                                      \
    do {                                                                                           \
        CHECK(oort_lock(session, key, 1) == OORT_OK);                                              \
        status = (call);                                                                           \
        if (status == OORT_COLD)                                                                   \
            bring_in(session, store);                                                              \
    } while (status == OORT_COLD)

static inline int32_t put(fixture *f, oort_key key, const void *data, size_t size,
                          int64_t expiry_ms)
{
    oort_bytes part = {data, size};
    int32_t status;

    UNTIL_WARM(f->store, f->session, &key, oort_write(f->session, &key, &part, 1, expiry_ms));
    oort_unlock(f->session);
    return status;
}

static inline int32_t put_text(fixture *f, oort_key key, const char *text)
{
    return put(f, key, text, strlen(text), 0);
}

static inline int32_t drop(fixture *f, oort_key key)
{
    int32_t status;

    UNTIL_WARM(f->store, f->session, &key, oort_remove(f->session, &key));
    oort_unlock(f->session);
    return status;
}

static inline int32_t expire(fixture *f, oort_key key, int64_t expiry_ms)
{
    int32_t status;

    UNTIL_WARM(f->store, f->session, &key, oort_set_expiry(f->session, &key, expiry_ms));
    oort_unlock(f->session);
    return status;
}

/* Reads a key and keeps it locked. */
static inline int32_t look(fixture *f, const oort_key *key, oort_value *value)
{
    int32_t status;

    memset(value, 0, sizeof *value);
    UNTIL_WARM(f->store, f->session, key, oort_read(f->session, key, value));
    return status;
}

static inline bool holds(fixture *f, oort_key key, const void *data, size_t size)
{
    oort_value value;
    bool equal = look(f, &key, &value) == OORT_OK && value.size == size &&
                 (size == 0 || memcmp(value.data, data, size) == 0);

    oort_unlock(f->session);
    return equal;
}

static inline bool holds_text(fixture *f, oort_key key, const char *text)
{
    return holds(f, key, text, strlen(text));
}

static inline bool missing(fixture *f, oort_key key)
{
    oort_value value;
    int32_t status = look(f, &key, &value);

    oort_unlock(f->session);
    return status == OORT_MISSING;
}

static inline uint64_t stamp_of(fixture *f, oort_key key)
{
    oort_value value;

    CHECK(look(f, &key, &value) == OORT_OK);
    oort_unlock(f->session);
    return value.stamp;
}

static inline uint64_t keys_in(fixture *f, uint8_t database)
{
    struct store_reading stats;

    oort_store_get_metrics(f->store, stats.place);
    return stats.keys[database];
}

static inline uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* ---- which stores -------------------------------------------------------- */

static const struct {
    const char *name;
    opener open;
} stores[] = {
    {"mapstore", oort_mapstore_open},
    {"valuestore", oort_valuestore_open},
};

static inline int remove_one(const char *path, const struct stat *status, int kind,
                             struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

typedef struct suite_test {
    const char *name;
    void (*run)(fixture *f);
} suite_test;

/* Arguments of the program: none, or the name of a store. */
static inline int run_suite(int argc, char **argv, const suite_test *tests, size_t test_count)
{
    for (size_t store = 0; store < sizeof stores / sizeof stores[0]; store++) {
        if (argc > 1 && strcmp(argv[1], stores[store].name) != 0)
            continue;
        for (size_t test = 0; test < test_count; test++) {
            fixture f = {.open = stores[store].open};
            printf("  %s: %s\n", stores[store].name, tests[test].name);
            (void)fflush(stdout);
            (void)snprintf(f.directory, sizeof f.directory, "/tmp/test_store.XXXXXX");
            CHECK(mkdtemp(f.directory) != NULL);
            f.config = (oort_store_config){.directory = f.directory, .segment_bytes = 1 << 20};
            open_store(&f);
            tests[test].run(&f);
            close_store(&f);
            CHECK(nftw(f.directory, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
        }
    }
    return 0;
}

#endif
