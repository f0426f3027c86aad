/*
 * test_store.c: the contract of oort.h about keys, checked on every store through the public calls
 * alone.
 *
 * The time is the session's clock, which the tests set.
 */
#include "tests/store_suite.h"

static void test_one_key(fixture *f)
{
    static const uint8_t every_byte[4] = {0, '\r', '\n', 0xff};
    oort_key binary = key_of(every_byte, 4, 0);
    oort_key empty = key_of("", 0, 0);
    uint64_t before;

    CHECK(missing(f, named("a")));
    CHECK(drop(f, named("a")) == OORT_MISSING);
    CHECK(put_text(f, named("a"), "one") == OORT_OK);
    CHECK(holds_text(f, named("a"), "one"));
    before = stamp_of(f, named("a"));
    CHECK(put_text(f, named("a"), "another") == OORT_OK);
    CHECK(holds_text(f, named("a"), "another"));
    CHECK(stamp_of(f, named("a")) > before);
    CHECK(keys_in(f, 0) == 1);

    CHECK(put(f, binary, every_byte, 4, 0) == OORT_OK);
    CHECK(holds(f, binary, every_byte, 4));
    CHECK(put(f, empty, "", 0, 0) == OORT_OK);
    CHECK(holds(f, empty, "", 0));
    CHECK(missing(f, key_of("\0", 1, 0)));
    CHECK(keys_in(f, 0) == 3);

    CHECK(drop(f, named("a")) == OORT_OK);
    CHECK(missing(f, named("a")));
    CHECK(drop(f, named("a")) == OORT_MISSING);
    CHECK(drop(f, binary) == OORT_OK && drop(f, empty) == OORT_OK);
    CHECK(keys_in(f, 0) == 0);
}

static void test_equal_hashes(fixture *f)
{
    oort_key keys[3] = {named("first"), named("other"), named("a third")};

    keys[1].hash = keys[2].hash = keys[0].hash;
    for (int i = 0; i < 3; i++)
        CHECK(put(f, keys[i], &i, sizeof i, 0) == OORT_OK);
    CHECK(keys_in(f, 0) == 3);
    for (int i = 0; i < 3; i++)
        CHECK(holds(f, keys[i], &i, sizeof i));
    CHECK(drop(f, keys[1]) == OORT_OK);
    CHECK(missing(f, keys[1]) && !missing(f, keys[0]) && !missing(f, keys[2]));
}

static void test_clock_steps_back(fixture *f)
{
    uint64_t before;

    CHECK(put_text(f, named("k"), "later") == OORT_OK);
    before = stamp_of(f, named("k"));
    oort_session_set_clock(f->session, START_US - INT64_C(3600000000));
    CHECK(put_text(f, named("k"), "earlier") == OORT_OK);
    CHECK(stamp_of(f, named("k")) > before);
    CHECK(holds_text(f, named("k"), "earlier"));
}

static void test_expiry(fixture *f)
{
    oort_value value;
    oort_key key = named("k");
    struct store_reading stats;
    uint64_t before;
    char name[16];

    CHECK(put(f, key, "v", 1, START_MS + 1000) == OORT_OK);
    CHECK(look(f, &key, &value) == OORT_OK && value.expiry_ms == START_MS + 1000);
    oort_unlock(f->session);
    oort_session_set_clock(f->session, START_US + 999000);
    CHECK(holds_text(f, key, "v"));
    oort_session_set_clock(f->session, START_US + 1001000);
    CHECK(missing(f, key));
    CHECK(drop(f, key) == OORT_MISSING);
    CHECK(expire(f, key, 0) == OORT_MISSING);
    CHECK(keys_in(f, 0) == 0);

    /* A change of expiry keeps the value.  Zero removes the expiry.  A write removes the expiry
     * too. */
    CHECK(put(f, key, "w", 1, START_MS + 2000) == OORT_OK);
    before = stamp_of(f, key);
    CHECK(expire(f, key, START_MS + 9000) == OORT_OK);
    CHECK(stamp_of(f, key) > before);
    oort_session_set_clock(f->session, START_US + 3000000);
    CHECK(holds_text(f, key, "w"));
    CHECK(expire(f, key, 0) == OORT_OK);
    oort_session_set_clock(f->session, START_US + 10000000);
    CHECK(holds_text(f, key, "w"));
    CHECK(expire(f, key, START_MS + 20000) == OORT_OK);
    CHECK(put_text(f, key, "x") == OORT_OK);
    oort_session_set_clock(f->session, START_US + 30000000);
    CHECK(holds_text(f, key, "x"));

    /* An expiry in the past removes the key. */
    CHECK(expire(f, key, START_MS) == OORT_OK);
    CHECK(missing(f, key));
    CHECK(put_text(f, key, "y") == OORT_OK);
    CHECK(put(f, key, "z", 1, START_MS) == OORT_OK);
    CHECK(missing(f, key));
    CHECK(put_text(f, key, "y") == OORT_OK);
    CHECK(expire(f, key, -1) == OORT_OK);
    CHECK(missing(f, key));
    CHECK(put(f, named("never was"), "z", 1, 1) == OORT_OK);
    CHECK(missing(f, named("never was")));
    CHECK(keys_in(f, 0) == 0);

    oort_store_get_metrics(f->store, stats.place);
    before = stats.expired_keys;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "e%d", i);
        CHECK(put(f, named(name), name, 4, START_MS + 30001 + i) == OORT_OK);
    }
    oort_session_set_clock(f->session, START_US + 40000000);
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "e%d", i);
        CHECK(missing(f, named(name)));
    }
    oort_store_get_metrics(f->store, stats.place);
    CHECK(stats.keys[0] == 0 && stats.expired_keys == before + 100);
    oort_store_reset_metrics(f->store);
    oort_store_get_metrics(f->store, stats.place);
    CHECK(stats.expired_keys == 0);
}

static void test_caps(fixture *f)
{
    oort_store_config config = f->config;
    size_t cap = 1 << 20;
    uint8_t *bytes = malloc(cap + 1);
    oort_key longest;
    oort_bytes halves[2];

    CHECK(bytes != NULL);
    memset(bytes, 'x', cap + 1);
    config.value_cap = cap;
    reopen_with(f, config);
    CHECK(put(f, named("k"), bytes, cap, 0) == OORT_OK);
    CHECK(holds(f, named("k"), bytes, cap));
    CHECK(put(f, named("k"), bytes, cap + 1, 0) == OORT_ERR_TOO_BIG);
    CHECK(strlen(oort_session_error(f->session)) > 0);
    longest = named("k");
    CHECK(oort_lock(f->session, &longest, 1) == OORT_OK);
    halves[0] = (oort_bytes){bytes, cap};
    halves[1] = (oort_bytes){bytes, UINT64_MAX};
    CHECK(oort_write(f->session, &longest, halves, 2, 0) == OORT_ERR_TOO_BIG);
    oort_unlock(f->session);
    CHECK(holds(f, named("k"), bytes, cap));

    longest = key_of(bytes, OORT_KEY_CAP, 0);
    CHECK(put_text(f, longest, "long") == OORT_OK);
    CHECK(holds_text(f, longest, "long"));
    CHECK(put_text(f, key_of(bytes, OORT_KEY_CAP + 1, 0), "too long") == OORT_ERR_TOO_BIG);
    CHECK(keys_in(f, 0) == 2);
    free(bytes);
}

static void test_large_values_and_pins(fixture *f)
{
    size_t size = 16 << 20;
    uint8_t *bytes = malloc(size);
    oort_key key = named("large");
    oort_bytes parts[3];
    oort_value value;
    oort_value small;
    int32_t status;

    CHECK(bytes != NULL);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    parts[0] = (oort_bytes){bytes, 5000001};
    parts[1] = (oort_bytes){NULL, 0};
    parts[2] = (oort_bytes){bytes + 5000001, size - 5000001};
    UNTIL_WARM(f->store, f->session, &key, oort_write(f->session, &key, parts, 3, 0));
    oort_unlock(f->session);
    CHECK(status == OORT_OK);
    CHECK(look(f, &key, &value) == OORT_OK);
    CHECK(value.size == size && value.stored_bytes >= size && value.pin == NULL);
    oort_pin(f->session, &value);
    oort_unlock(f->session);
    CHECK(value.pin != NULL);

    /* Pinned bytes outlive an overwrite, a removal, a flush and the session. */
    CHECK(put_text(f, key, "small") == OORT_OK);
    CHECK(look(f, &key, &small) == OORT_OK);
    oort_pin(f->session, &small);
    oort_unlock(f->session);
    CHECK(drop(f, key) == OORT_OK);
    CHECK(put_text(f, named("other"), "gone soon") == OORT_OK);
    CHECK(oort_store_flush(f->session, -1) == OORT_OK);
    CHECK(put_text(f, key, "SMALL") == OORT_OK);
    oort_session_close(f->session);
    f->session = oort_session_open(f->store, NULL);
    CHECK(f->session != NULL);
    CHECK(memcmp(value.data, bytes, size) == 0);
    CHECK(small.size == 5 && memcmp(small.data, "small", 5) == 0);
    oort_unpin(f->store, &value);
    oort_unpin(f->store, &small);
    CHECK(value.pin == NULL);
    oort_unpin(f->store, &value);
    CHECK(holds_text(f, key, "SMALL"));
    free(bytes);
}

static void test_reads_last_until_unlock(fixture *f)
{
    oort_key key = named("grows");
    oort_value value;
    oort_value removed;
    uint8_t expected[2000];

    CHECK(put_text(f, key, "a") == OORT_OK);
    for (size_t size = 1; size < 2000; size++) {
        oort_bytes parts[2] = {{NULL, 0}, {(const uint8_t *)"b", 1}};
        CHECK(look(f, &key, &value) == OORT_OK && value.size == size);
        parts[0] = (oort_bytes){value.data, value.size};
        CHECK(oort_write(f->session, &key, parts, 2, 0) == OORT_OK);
        CHECK(value.data[0] == 'a' && (size == 1 || value.data[size - 1] == 'b'));
        oort_unlock(f->session);
    }
    memset(expected, 'b', sizeof expected);
    expected[0] = 'a';
    CHECK(holds(f, key, expected, 2000));
    CHECK(look(f, &key, &removed) == OORT_OK);
    CHECK(oort_remove(f->session, &key) == OORT_OK);
    CHECK(removed.size == 2000 && memcmp(removed.data, expected, 2000) == 0);
    CHECK(oort_read(f->session, &key, &value) == OORT_MISSING);
    oort_unlock(f->session);
}

static int32_t write_batch(fixture *f, oort_key *keys, const char **texts, uint32_t count,
                           bool commit)
{
    static oort_bytes parts[2000];
    uint64_t bytes = 0;
    int32_t status;

    for (uint32_t i = 0; i < count; i++) {
        parts[i] = (oort_bytes){(const uint8_t *)texts[i], strlen(texts[i])};
        bytes += keys[i].size + parts[i].size;
    }
    do {
        CHECK(oort_lock(f->session, keys, count) == OORT_OK);
        status = oort_batch_begin(f->session, count, bytes);
        for (uint32_t i = 0; i < count && status == OORT_OK; i++)
            status = oort_write(f->session, &keys[i], &parts[i], 1, 0);
        if (status == OORT_OK && commit) {
            status = oort_batch_commit(f->session);
            oort_unlock(f->session);
        } else {
            oort_batch_abort(f->session);
            if (status == OORT_COLD)
                bring_in(f->session, f->store);
            else
                oort_unlock(f->session);
        }
    } while (status == OORT_COLD);
    return status;
}

static void test_batches(fixture *f)
{
    oort_key keys[4] = {named("a"), named("b"), named("{b}c"), named("a")};
    const char *texts[4] = {"1", "2", "", "last wins"};
    const char *others[4] = {"5", "6", "7", "8"};
    enum { MANY = 2000 };
    static char names[MANY][16];
    static oort_key many[MANY];
    static const char *values[MANY];

    CHECK(put_text(f, named("a"), "before") == OORT_OK);
    CHECK(write_batch(f, keys, texts, 4, false) == OORT_OK);
    CHECK(holds_text(f, named("a"), "before"));
    CHECK(missing(f, named("b")) && missing(f, named("{b}c")));
    CHECK(keys_in(f, 0) == 1);

    CHECK(write_batch(f, keys, texts, 4, true) == OORT_OK);
    CHECK(holds_text(f, named("a"), "last wins"));
    CHECK(holds_text(f, named("b"), "2"));
    CHECK(holds_text(f, named("{b}c"), ""));
    CHECK(keys_in(f, 0) == 3);

    CHECK(write_batch(f, keys, others, 4, false) == OORT_OK);
    CHECK(holds_text(f, named("a"), "last wins") && holds_text(f, named("b"), "2"));
    CHECK(keys_in(f, 0) == 3);
    CHECK(write_batch(f, keys, others, 4, true) == OORT_OK);
    CHECK(holds_text(f, named("a"), "8") && holds_text(f, named("{b}c"), "7"));

    for (int i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "many%d", i);
        many[i] = named(names[i]);
        values[i] = names[i];
    }
    CHECK(write_batch(f, many, values, MANY, false) == OORT_OK);
    CHECK(keys_in(f, 0) == 3);
    CHECK(write_batch(f, many, values, MANY, true) == OORT_OK);
    CHECK(keys_in(f, 0) == 3 + MANY);
    for (int i = 0; i < MANY; i++)
        CHECK(holds_text(f, many[i], values[i]));
    CHECK(drop(f, many[7]) == OORT_OK);
    CHECK(keys_in(f, 0) == 2 + MANY);
}

/* Random calls, checked against a table of the expected content. */
static void test_model(fixture *f)
{
    enum { KEYS = 400, DATABASES = 3 };
    static struct {
        bool present;
        uint32_t number;
        int64_t expiry_ms;
    } model[DATABASES][KEYS];
    uint64_t random = 42;
    int64_t now_ms = START_MS;

    memset(model, 0, sizeof model);
    for (uint32_t turn = 1; turn <= 40000; turn++) {
        uint32_t which = next_random(&random) % KEYS;
        uint8_t database = (uint8_t)(next_random(&random) % DATABASES);
        uint32_t dice = next_random(&random) % 100;
        int64_t expiry_ms = now_ms + 2 * (next_random(&random) % 500) + 1;
        oort_key key;
        char name[16];
        bool present;
        (void)snprintf(name, sizeof name, which % 2 == 0 ? "{t}%u" : "%u", which);
        key = key_of(name, strlen(name), database);
        if (dice < 50)
            now_ms += 2;
        oort_session_set_clock(f->session, now_ms * 1000);
        present = model[database][which].present && (model[database][which].expiry_ms == 0 ||
                                                     model[database][which].expiry_ms > now_ms);
        if (dice < 40) {
            expiry_ms = dice < 20 ? 0 : expiry_ms;
            CHECK(put(f, key, &turn, sizeof turn, expiry_ms) == OORT_OK);
            model[database][which].present = expiry_ms == 0 || expiry_ms > now_ms;
            model[database][which].number = turn;
            model[database][which].expiry_ms = expiry_ms;
        } else if (dice < 55) {
            CHECK(drop(f, key) == (present ? OORT_OK : OORT_MISSING));
            model[database][which].present = false;
        } else if (dice < 70) {
            CHECK(expire(f, key, expiry_ms) == (present ? OORT_OK : OORT_MISSING));
            model[database][which].expiry_ms = expiry_ms;
            model[database][which].present = present && expiry_ms > now_ms;
        } else if (present) {
            CHECK(holds(f, key, &model[database][which].number, sizeof turn));
        } else {
            CHECK(missing(f, key));
        }
    }
    for (uint8_t database = 0; database < DATABASES; database++) {
        uint64_t present = 0;
        for (uint32_t which = 0; which < KEYS; which++) {
            char name[16];
            (void)snprintf(name, sizeof name, which % 2 == 0 ? "{t}%u" : "%u", which);
            if (!missing(f, key_of(name, strlen(name), database)))
                present++;
        }
        CHECK(present > 0 && keys_in(f, database) == present);
    }
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"one key", test_one_key},
        {"equal hashes", test_equal_hashes},
        {"the clock steps back", test_clock_steps_back},
        {"expiry", test_expiry},
        {"caps", test_caps},
        {"large values and pins", test_large_values_and_pins},
        {"reads last until unlock", test_reads_last_until_unlock},
        {"batches", test_batches},
        {"model", test_model},
    };

    return run_suite(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
