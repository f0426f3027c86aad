/*
 * test_store_walk.c: the contract of oort.h about whole databases (flush, SCAN, random keys, the
 * removal of expired keys that nobody reads) and about threads, checked on every store.
 *
 * The tests wait until the expiry thread has done its work, however long that takes.
 */
#include "tests/store_suite.h"

#include <pthread.h>

static void test_active_expiry(fixture *f)
{
    oort_store_config config = f->config;
    int64_t now_ms;
    struct store_reading stats;
    char name[24];

    config.background = 1;
    reopen_with(f, config);
    oort_session_set_clock(f->session, 0);
    now_ms = oort_session_now_ms(f->session);
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, i % 2 == 0 ? "{t}%d" : "k%d", i);
        CHECK(put(f, key_of(name, strlen(name), (uint8_t)(i % 3)), name, strlen(name),
                  i % 10 == 0 ? 0 : now_ms + 200 + i % 100) == OORT_OK);
    }
    for (int wait = 0; wait < 3000; wait++) {
        struct timespec pause = {0, 20000000};
        oort_store_get_metrics(f->store, stats.place);
        if (stats.keys[0] + stats.keys[1] + stats.keys[2] == 300)
            break;
        (void)nanosleep(&pause, NULL);
    }
    CHECK(stats.keys[0] == 100 && stats.keys[1] == 100 && stats.keys[2] == 100);
    CHECK(stats.expired_keys == 2700);
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, i % 2 == 0 ? "{t}%d" : "k%d", i);
        CHECK(missing(f, key_of(name, strlen(name), (uint8_t)(i % 3))) == (i % 10 != 0));
    }
}

static void test_databases_and_flush(fixture *f)
{
    char text[16];

    for (uint8_t database = 0; database < OORT_DATABASES; database++) {
        (void)snprintf(text, sizeof text, "in %d", database);
        CHECK(put_text(f, key_of("k", 1, database), text) == OORT_OK);
        for (int i = 0; i < database; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "n%d", i);
            CHECK(put_text(f, key_of(name, strlen(name), database), name) == OORT_OK);
        }
    }
    for (uint8_t database = 0; database < OORT_DATABASES; database++) {
        (void)snprintf(text, sizeof text, "in %d", database);
        CHECK(holds_text(f, key_of("k", 1, database), text));
        CHECK(keys_in(f, database) == database + 1u);
    }
    CHECK(drop(f, key_of("k", 1, 3)) == OORT_OK);
    CHECK(holds_text(f, key_of("k", 1, 4), "in 4"));

    CHECK(oort_store_flush(f->session, OORT_DATABASES) == OORT_ERR_ARGUMENT);
    CHECK(oort_store_flush(f->session, 5) == OORT_OK);
    CHECK(keys_in(f, 5) == 0 && missing(f, key_of("k", 1, 5)) && missing(f, key_of("n3", 2, 5)));
    CHECK(keys_in(f, 6) == 7 && holds_text(f, key_of("k", 1, 6), "in 6"));
    CHECK(put_text(f, key_of("k", 1, 5), "back") == OORT_OK);
    CHECK(holds_text(f, key_of("k", 1, 5), "back") && keys_in(f, 5) == 1);
    CHECK(oort_store_flush(f->session, -1) == OORT_OK);
    for (uint8_t database = 0; database < OORT_DATABASES; database++)
        CHECK(keys_in(f, database) == 0 && missing(f, key_of("k", 1, database)));
    CHECK(put_text(f, named("k"), "new") == OORT_OK);
    CHECK(holds_text(f, named("k"), "new") && keys_in(f, 0) == 1);
}

/* Keys "s<n>" are there during the whole scan.  Keys "c<n>" come and go while the scan runs. */
static void scan_under_churn(fixture *f, const char *prefix, uint64_t want)
{
    enum { STABLE = 3000, CHURN = 12000 };
    static uint8_t seen[STABLE];
    uint8_t buffer[8192];
    char name[32];
    uint64_t last = 0;
    uint64_t random = want;
    int next = 0;
    oort_scan scan = {.want = want, .buffer = buffer, .capacity = sizeof buffer};

    memset(seen, 0, sizeof seen);
    CHECK(oort_store_flush(f->session, -1) == OORT_OK);
    for (int i = 0; i < STABLE; i++) {
        (void)snprintf(name, sizeof name, "%ss%d", prefix, i);
        CHECK(put_text(f, named(name), name) == OORT_OK);
        CHECK(put_text(f, key_of(name, strlen(name), 1), "elsewhere") == OORT_OK);
    }
    (void)snprintf(name, sizeof name, "%sexpired", prefix);
    CHECK(put(f, named(name), "e", 1, START_MS + 1) == OORT_OK);
    oort_session_set_clock(f->session, START_US + 10000);
    do {
        const uint8_t *at = buffer;
        CHECK(oort_store_scan(f->session, 0, &scan) == OORT_OK);
        CHECK(scan.position == 0 || scan.position > last);
        CHECK(scan.position < UINT64_C(1) << 48 && scan.used <= sizeof buffer);
        last = scan.position;
        for (uint64_t i = 0; i < scan.count; i++) {
            uint32_t size;
            memcpy(&size, at, sizeof size);
            CHECK(size < sizeof name && at + sizeof size + size <= buffer + scan.used);
            memcpy(name, at + sizeof size, size);
            name[size] = '\0';
            at += sizeof size + size;
            CHECK(strncmp(name, prefix, strlen(prefix)) == 0);
            if (name[strlen(prefix)] == 's')
                seen[atoi(name + strlen(prefix) + 1)]++;
            else
                CHECK(name[strlen(prefix)] == 'c');
        }
        CHECK(at == buffer + scan.used);
        for (int i = 0; i < 60 && next < 2 * CHURN; i++, next++) {
            (void)snprintf(name, sizeof name, "%sc%d", prefix, next % CHURN);
            if (next < CHURN)
                CHECK(put_text(f, named(name), "churn") == OORT_OK);
            else
                CHECK(drop(f, named(name)) == OORT_OK);
        }
        (void)snprintf(name, sizeof name, "%ss%d", prefix, (int)(next_random(&random) % STABLE));
        CHECK(put_text(f, named(name), "overwritten") == OORT_OK);
    } while (scan.position != 0);
    for (int i = 0; i < STABLE; i++)
        CHECK(seen[i] == 1);
}

static void test_scan(fixture *f)
{
    uint8_t buffer[64];
    oort_scan scan = {.want = 1, .buffer = buffer, .capacity = 10};

    CHECK(oort_store_scan(f->session, 0, &scan) == OORT_OK);
    CHECK(scan.position == 0 && scan.count == 0 && scan.used == 0);
    CHECK(put_text(f, named("longer than it"), "v") == OORT_OK);
    CHECK(oort_store_scan(f->session, 0, &scan) == OORT_ERR_TOO_BIG);
    CHECK(scan.capacity_needed == 4 + 14);
    scan.capacity = scan.capacity_needed;
    scan.position = 0;
    CHECK(oort_store_scan(f->session, 0, &scan) == OORT_OK);
    CHECK(scan.count == 1 && scan.used == 18 && memcmp(buffer + 4, "longer than it", 14) == 0);
    scan.position = (UINT64_C(1) << 48) - 1;
    CHECK(oort_store_scan(f->session, 0, &scan) == OORT_OK);
    CHECK(scan.position == 0 && scan.count == 0);

    scan_under_churn(f, "", 10);
    oort_session_set_clock(f->session, START_US);
    scan_under_churn(f, "{one slot}", 10);
    oort_session_set_clock(f->session, START_US);
    scan_under_churn(f, "{one slot}", 100000); /* the size of the buffer limits it */
}

/* A walk over few keys stays short if many keys were deleted. */
static void test_scan_after_deletes(fixture *f)
{
    uint8_t buffer[4096];
    oort_scan scan = {.want = 10, .buffer = buffer, .capacity = sizeof buffer};
    uint64_t found = 0, calls = 0;
    char name[24];

    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof name, i % 2 == 0 ? "{t}%d" : "k%d", i);
        oort_key key = named(name);
        CHECK(put_text(f, key, "v") == OORT_OK);
        if (i % 1000 != 0)
            CHECK(drop(f, key) == OORT_OK);
    }
    do {
        CHECK(oort_store_scan(f->session, 0, &scan) == OORT_OK);
        found += scan.count;
        calls++;
    } while (scan.position != 0);
    CHECK(found == 20 && calls < 200);
}

static void test_random_key(fixture *f)
{
    static uint8_t buffer[OORT_KEY_CAP];
    uint32_t size = 0;
    char name[16];
    int drawn[3] = {0};
    static uint8_t seen[1000];
    int distinct = 0;

    memset(seen, 0, sizeof seen);
    CHECK(oort_store_random_key(f->session, 0, buffer, &size) == OORT_MISSING);
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "key %d", i);
        CHECK(put_text(f, named(name), "v") == OORT_OK);
    }
    CHECK(put_text(f, key_of("other", 5, 1), "v") == OORT_OK);
    for (int i = 0; i < 600; i++) {
        CHECK(oort_store_random_key(f->session, 0, buffer, &size) == OORT_OK);
        CHECK(size == 5 && memcmp(buffer, "key ", 4) == 0);
        drawn[buffer[4] - '0']++;
    }
    CHECK(drawn[0] > 0 && drawn[1] > 0 && drawn[2] > 0);
    CHECK(oort_store_random_key(f->session, 1, buffer, &size) == OORT_OK && size == 5);

    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "{t}%d", i);
        CHECK(put_text(f, key_of(name, strlen(name), 2), "v") == OORT_OK);
    }
    for (int i = 0; i < 3000; i++) {
        CHECK(oort_store_random_key(f->session, 2, buffer, &size) == OORT_OK);
        memcpy(name, buffer, size);
        name[size] = '\0';
        distinct += seen[atoi(name + 3)]++ == 0;
    }
    CHECK(distinct > 500);

    /* Only expired keys are left. */
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "key %d", i);
        CHECK(expire(f, named(name), START_MS + 1) == OORT_OK);
    }
    oort_session_set_clock(f->session, START_US + 10000);
    CHECK(oort_store_random_key(f->session, 0, buffer, &size) == OORT_MISSING);
}

/* ---- threads ------------------------------------------------------------- */

enum { THREADS = 4, PAIRS = 32, ROUNDS = 2500 };

typedef struct racer {
    pthread_t thread;
    fixture *f;
    uint64_t random;
    uint64_t added;
} racer;

/* Both keys of a pair always hold the same number, repeated so that a torn value is noticed. */
static void pair_keys(oort_key keys[2], char names[2][16], uint32_t pair)
{
    for (int i = 0; i < 2; i++) {
        (void)snprintf(names[i], sizeof names[i], "%c%u", "ab"[i], pair);
        keys[i] = named(names[i]);
    }
}

static uint64_t number_in(const oort_value *value)
{
    uint64_t words[8];

    CHECK(value->size == sizeof words);
    memcpy(words, value->data, sizeof words);
    for (int i = 1; i < 8; i++)
        CHECK(words[i] == words[0]);
    return words[0];
}

static void race_once(racer *me, oort_session *session)
{
    oort_key keys[2];
    char names[2][16];
    oort_value values[2];
    uint64_t words[8];
    oort_bytes part = {(const uint8_t *)words, sizeof words};
    int32_t status = OORT_OK;
    bool add = next_random(&me->random) % 2 == 0;

    pair_keys(keys, names, next_random(&me->random) % PAIRS);
    do {
        CHECK(oort_lock(session, keys, 2) == OORT_OK);
        memset(words, 0, sizeof words);
        for (int i = 0; i < 2 && status != OORT_COLD; i++) {
            status = oort_read(session, &keys[i], &values[i]);
            if (status == OORT_OK && i == 0)
                words[0] = number_in(&values[0]);
            if (status != OORT_COLD)
                CHECK(words[0] == (status == OORT_OK ? number_in(&values[i]) : 0));
        }
        if (status != OORT_COLD && add) {
            for (int i = 7; i >= 0; i--)
                words[i] = words[0] + 1;
            status = oort_batch_begin(session, 2, 2 * sizeof words + keys[0].size + keys[1].size);
            for (int i = 0; i < 2 && status == OORT_OK; i++)
                status = oort_write(session, &keys[i], &part, 1, 0);
            if (status == OORT_OK)
                status = oort_batch_commit(session);
            else
                oort_batch_abort(session);
            CHECK(status == OORT_OK || status == OORT_COLD);
        }
        if (status == OORT_COLD) {
            bring_in(session, me->f->store);
            continue;
        }
        me->added += add;
        if (!add && status == OORT_OK)
            oort_pin(session, &values[0]);
        oort_unlock(session);
        if (!add && status == OORT_OK) {
            CHECK(number_in(&values[0]) == words[0]);
            oort_unpin(me->f->store, &values[0]);
        }
        break;
    } while (true);
}

static void *race(void *argument)
{
    racer *me = argument;
    oort_session *session = oort_session_open(me->f->store, NULL);
    uint8_t buffer[4096];
    oort_scan scan = {.want = 5, .buffer = buffer, .capacity = sizeof buffer};

    CHECK(session != NULL);
    for (int round = 0; round < ROUNDS; round++) {
        oort_key noise;
        oort_bytes part = {(const uint8_t *)&round, sizeof round};
        uint32_t number = next_random(&me->random) % 64;
        int32_t status;
        oort_session_set_clock(session, START_US + round);
        race_once(me, session);
        /* Keys of database 1 are written, expire, are scanned and flushed all the time. */
        noise = key_of(&number, sizeof number, 1);
        UNTIL_WARM(me->f->store, session, &noise,
                   round % 3 == 0 ? oort_remove(session, &noise)
                                  : oort_write(session, &noise, &part, 1, START_MS + round % 5));
        oort_unlock(session);
        if (round % 16 == 0)
            CHECK(oort_store_scan(session, (uint8_t)(round / 16 % 2), &scan) == OORT_OK);
        if (round % 400 == 399)
            CHECK(oort_store_flush(session, 1) == OORT_OK);
        if (round % 32 == 0) {
            static _Thread_local uint8_t key[OORT_KEY_CAP];
            uint32_t size;
            CHECK(oort_store_random_key(session, 0, key, &size) == OORT_OK && size <= 3);
        }
    }
    oort_session_close(session);
    return NULL;
}

static void test_threads(fixture *f)
{
    oort_store_config config = f->config;
    racer racers[THREADS];
    uint64_t added = 0;
    uint64_t found = 0;
    uint64_t zero[8] = {0};

    config.background = 1;
    reopen_with(f, config);
    for (uint32_t pair = 0; pair < PAIRS; pair++) {
        oort_key keys[2];
        char names[2][16];
        pair_keys(keys, names, pair);
        CHECK(put(f, keys[0], zero, sizeof zero, 0) == OORT_OK);
        CHECK(put(f, keys[1], zero, sizeof zero, 0) == OORT_OK);
    }
    for (int i = 0; i < THREADS; i++) {
        racers[i] = (racer){.f = f, .random = (uint64_t)i * 7919 + 1};
        CHECK(pthread_create(&racers[i].thread, NULL, race, &racers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(racers[i].thread, NULL) == 0);
        added += racers[i].added;
    }
    for (uint32_t pair = 0; pair < PAIRS; pair++) {
        oort_key keys[2];
        char names[2][16];
        oort_value value;
        pair_keys(keys, names, pair);
        for (int i = 0; i < 2; i++) {
            CHECK(look(f, &keys[i], &value) == OORT_OK);
            found += number_in(&value);
            oort_unlock(f->session);
        }
    }
    CHECK(added > 0 && found == 2 * added);
    CHECK(keys_in(f, 0) == 2 * PAIRS);
    CHECK(oort_store_flush(f->session, 1) == OORT_OK);
    CHECK(keys_in(f, 1) == 0);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"active expiry", test_active_expiry},
        {"databases and flush", test_databases_and_flush},
        {"scan", test_scan},
        {"scan after deletes", test_scan_after_deletes},
        {"random key", test_random_key},
        {"threads", test_threads},
    };

    return run_suite(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
