/*
 * test_compaction.c: compaction gives space back and loses nothing, and dead keys stay dead.
 *
 * The strongest test runs random schedules of changes, compactions and restarts against a model.
 * From time to time it opens a copy of the data directory, whose index must be rebuilt from the log
 * alone. A failure prints its seed; OORT_TEST_SEED runs that seed only.
 */
#include "tests/recovery_suite.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "index/index.h"

#define SCHEDULE_KEYS 60u
#define SCHEDULE_DATABASES 3u

static struct state model[MODEL_DATABASES][MODEL_KEYS];
static _Atomic uint32_t unlinks_until_kill; /* 0: no kill */

/* Replaces the C library's function.  Compaction removes files only by this call. */
int unlinkat(int directory, const char *name, int flags)
{
    if (atomic_load(&unlinks_until_kill) != 0 && atomic_fetch_sub(&unlinks_until_kill, 1) == 1)
        (void)kill(getpid(), SIGKILL);
    return (int)syscall(SYS_unlinkat, directory, name, flags);
}

/* ---- random schedules ---------------------------------------------------------- */

struct schedule {
    fixture f;
    directories at;
    uint64_t random;
    int64_t now_us;
    uint32_t version;
};

static uint32_t below(struct schedule *s, uint32_t bound)
{
    return next_random(&s->random) % bound;
}

static int64_t some_expiry(struct schedule *s)
{
    static const int64_t spans_ms[] = {5, 200, 5000, 1000000};
    return below(s, 3) != 0 ? 0 : s->now_us / 1000 + spans_ms[below(s, 4)];
}

static struct state some_state(struct schedule *s)
{
    uint32_t kind = below(s, 200);
    uint32_t size = kind == 0   ? 70000 + below(s, 30000)
                    : kind < 80 ? 257 + below(s, 4000)
                                : below(s, 200);
    return (struct state){
        .present = true, .version = ++s->version, .size = size, .expiry_ms = some_expiry(s)};
}

static void do_batch(struct schedule *s)
{
    static uint8_t bytes[8][8192];
    char names[8][32];
    oort_key keys[8];
    struct state states[8];
    uint32_t numbers[8], count = 1 + below(s, 8), database = below(s, SCHEDULE_DATABASES);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = below(s, SCHEDULE_KEYS);
        states[i] = some_state(s);
        states[i].size %= 5000;
        keys[i] = model_key(names[i], database, numbers[i]);
        fill_value(bytes[i], states[i].version, states[i].size);
        total += keys[i].size + states[i].size;
    }
    CHECK(oort_lock(s->f.session, keys, count) == OORT_OK);
    CHECK(oort_batch_begin(s->f.session, count, total) == OORT_OK);
    for (uint32_t i = 0; i < count; i++) {
        oort_bytes part = {bytes[i], states[i].size};
        CHECK(oort_write(s->f.session, &keys[i], &part, 1, states[i].expiry_ms) == OORT_OK);
    }
    if (below(s, 4) == 0) {
        oort_batch_abort(s->f.session);
    } else {
        CHECK(oort_batch_commit(s->f.session) == OORT_OK);
        for (uint32_t i = 0; i < count; i++)
            model[database][numbers[i]] = states[i];
    }
    oort_unlock(s->f.session);
}

/* The copy has no trusted index, so the store is rebuilt from the log. */
static void check_copy(struct schedule *s)
{
    char path[128];
    fixture copy = s->f;
    (void)snprintf(path, sizeof path, "%s/copy", s->at.base);
    copy_directory(s->at.data, path);
    copy.config.directory = path;
    copy.config.runtime_directory = NULL;
    open_store(&copy);
    struct store_reading stats = stats_of(&copy);
    CHECK((stats.recovery == 2 || stats.segments == 0) && stats.damaged_records == 0);
    oort_session_set_clock(copy.session, s->now_us);
    check_model(&copy, model);
    close_store(&copy);
    remove_directory(path);
}

static void restart(struct schedule *s, bool rebuild)
{
    char path[128];
    close_store(&s->f);
    (void)snprintf(path, sizeof path, "%s/index", s->at.data);
    if (rebuild)
        CHECK(unlink(path) == 0);
    open_store(&s->f);
    /* Without segments there is nothing to rebuild from. */
    struct store_reading stats = stats_of(&s->f);
    CHECK(stats.recovery == (rebuild && stats.segments != 0 ? 2 : 0));
}

static void step(struct schedule *s)
{
    uint32_t database = below(s, SCHEDULE_DATABASES), number = below(s, SCHEDULE_KEYS);
    struct state *state = &model[database][number];
    char name[32];
    oort_key key = model_key(name, database, number);
    uint32_t choice = below(s, 1000);
    int64_t now_ms = s->now_us / 1000;
    oort_error error;
    oort_session_set_clock(s->f.session, s->now_us);
    if (choice < 450) {
        struct state fresh = some_state(s);
        CHECK(put_state(&s->f, database, number, &fresh) == OORT_OK);
        *state = fresh;
    } else if (choice < 620) {
        CHECK(drop(&s->f, key) == (state_alive(state, now_ms) ? OORT_OK : OORT_MISSING));
        state->present = false;
    } else if (choice < 740) {
        int64_t expiry_ms = below(s, 10) == 0 ? 1 : some_expiry(s);
        bool alive = state_alive(state, now_ms);
        CHECK(expire(&s->f, key, expiry_ms) == (alive ? OORT_OK : OORT_MISSING));
        if (alive)
            state->expiry_ms = expiry_ms;
    } else if (choice < 800) {
        do_batch(s);
    } else if (choice < 830) {
        s->now_us += (int64_t)below(s, 3) * below(s, 10000000);
    } else if (choice < 835) {
        bool all = below(s, 4) == 0;
        CHECK(oort_store_flush(s->f.session, all ? -1 : (int32_t)database) == OORT_OK);
        for (uint32_t i = 0; i < SCHEDULE_DATABASES * MODEL_KEYS; i++)
            if (all || i / MODEL_KEYS == database)
                model[i / MODEL_KEYS][i % MODEL_KEYS].present = false;
    } else if (choice < 870) {
        CHECK(oort_store_compact(s->f.store, 1 + below(s, 90), &error) >= 0);
        CHECK(!said(&s->f, "the index knows neither"));
    } else if (choice < 890) {
        /* Reads all keys, so that expired ones become dead in the index without a record in the
         * log. */
        for (uint32_t i = 0; i < SCHEDULE_KEYS; i++)
            CHECK(same_state(&s->f, database, i, &model[database][i]));
    } else if (choice < 900) {
        restart(s, below(s, 2) == 0);
    } else if (choice < 905) {
        check_copy(s);
    }
    /* Every change takes a new stamp, and the clock must not fall behind the stamps. */
    s->now_us += 20;
}

static void run_schedule(uint64_t seed)
{
    struct schedule s = {.random = seed, .now_us = START_US};
    oort_error error;
    memset(model, 0, sizeof model);
    directories_make(&s.at);
    s.f = in_directories(&s.at);
    open_store(&s.f);
    for (int i = 0; i < 1200; i++)
        step(&s);
    s.now_us += 1000;
    oort_session_set_clock(s.f.session, s.now_us);
    check_model(&s.f, model);
    check_copy(&s);
    CHECK(oort_store_compact(s.f.store, 1, &error) >= 0);
    CHECK(stats_of(&s.f).damaged_records == 0);
    CHECK(!said(&s.f, "the index knows neither"));
    check_copy(&s);
    restart(&s, true);
    oort_session_set_clock(s.f.session, s.now_us);
    check_model(&s.f, model);
    close_store(&s.f);
    directories_remove(&s.at);
}

static void test_schedules(void)
{
    const char *one = getenv("OORT_TEST_SEED");
    uint32_t rounds = one != NULL ? 1 : test_rounds(25);
    for (uint32_t i = 0; i < rounds; i++) {
        uint64_t seed = one != NULL ? strtoull(one, NULL, 10) : 1 + i;
        fprintf(stderr, "\r  seed %" PRIu64 " ", seed);
        run_schedule(seed);
    }
    fprintf(stderr, "\r");
}

/* ---- what is dead is not read --------------------------------------------------- */

/* Segments without live records are removed even if their records cannot be read any more, because
 * no I/O and no waiting is spent on them. */
static void test_dead_segments_are_not_read(void)
{
    directories p;
    oort_error error;
    char names[512][32], path[192];
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    for (uint32_t version = 1; version <= 60; version++)
        for (uint32_t number = 0; number < 20; number++)
            CHECK(put_state(&f, 0, number, &(struct state){true, version, 3000, 0}) == OORT_OK);
    for (uint32_t number = 0; number < 20; number++)
        model[0][number] = (struct state){true, 60, 3000, 0};
    CHECK(oort_store_sync(f.store, &error) == OORT_OK);
    size_t before = list_files(p.data, ".log", names, 512);
    CHECK(before > 10);
    /* All segments except the last few have no live records. */
    for (size_t i = 0; i + 4 < before; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", p.data, names[i]);
        CHECK(truncate(path, 0) == 0);
    }
    CHECK(oort_store_compact(f.store, 100, &error) >= 0);
    struct store_reading stats = stats_of(&f);
    CHECK(stats.damaged_records == 0 && stats.compactions >= before - 5);
    CHECK(list_files(p.data, ".log", names, 512) <= 6);
    for (uint32_t number = 0; number < 20; number++)
        CHECK(same_state(&f, 0, number, &model[0][number]));
    close_store(&f);
    directories_remove(&p);
}

/* ---- what a change beside it needs is not dead ------------------------------------ */

static void *compact_all(void *store)
{
    oort_error error;
    CHECK(oort_store_compact(store, 1, &error) >= 0);
    return NULL;
}

/* Every compaction and every sync is timed.  A reset empties the times and keeps the totals. */
static void check_times(fixture *f)
{
    struct store_reading before = stats_of(f), after;
    oort_histogram compaction, fsync;
    CHECK(oort_store_get_histogram(f->store, STORE_HISTOGRAM_compaction, &compaction) == OORT_OK);
    CHECK(oort_store_get_histogram(f->store, STORE_HISTOGRAM_fsync, &fsync) == OORT_OK);
    CHECK(compaction.count == before.compactions && compaction.sum_ns > 0);
    CHECK(fsync.count == before.syncs && fsync.sum_ns > 0 && fsync.max_ns <= fsync.sum_ns);
    oort_store_reset_metrics(f->store);
    CHECK(oort_store_get_histogram(f->store, STORE_HISTOGRAM_fsync, &fsync) == OORT_OK);
    CHECK(fsync.count == 0 && fsync.sum_ns == 0 && fsync.max_ns == 0);
    CHECK(oort_store_get_histogram(f->store, STORE_HISTOGRAMS, &fsync) == OORT_ERR_ARGUMENT);
    after = stats_of(f);
    CHECK(after.compactions == before.compactions && after.syncs == before.syncs);
    CHECK(after.keys[0] == before.keys[0] && after.log_bytes == before.log_bytes);
}

/* A key gets its first expiry record, which points at its value, just when compaction is about to
 * check whether the value is dead. */
static void test_expiry_meanwhile(void)
{
    directories p;
    char name[32];
    pthread_t thread;
    struct state dead = {true, 1, 3000, 0}, kept = {true, 2, 3000, START_MS + 1000000};
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    CHECK(put_state(&f, 0, 0, &(struct state){true, 2, 3000, 0}) == OORT_OK);
    CHECK(put_state(&f, 0, 1, &dead) == OORT_OK);
    close_store(&f); /* seals the segment */
    open_store(&f);
    CHECK(put_state(&f, 0, 1, &dead) == OORT_OK);
    oort_key key = model_key(name, 0, 0);
    CHECK(oort_lock(f.session, &key, 1) == OORT_OK);
    CHECK(pthread_create(&thread, NULL, compact_all, f.store) == 0);
    (void)usleep(100000); /* by now compaction waits for the key */
    CHECK(oort_set_expiry(f.session, &key, kept.expiry_ms) == OORT_OK);
    oort_unlock(f.session);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(stats_of(&f).compactions == 1);
    check_times(&f);
    CHECK(same_state(&f, 0, 0, &kept) && same_state(&f, 0, 1, &dead));
    close_store(&f);
    directories_remove(&p);
}

/* A damaged value keeps its segment, even if only an expiry record points at the value. */
static void test_damaged_target(size_t in_record, bool rebuilt)
{
    directories p;
    char name[32], names[8][32], path[192], index[192];
    oort_error error;
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    CHECK(put_state(&f, 0, 0, &(struct state){true, 1, 3000, 0}) == OORT_OK);
    CHECK(put_state(&f, 0, 1, &(struct state){true, 1, 3000, 0}) == OORT_OK);
    close_store(&f); /* seals the segment */
    open_store(&f);
    CHECK(expire(&f, model_key(name, 0, 0), START_MS + 1000000) == OORT_OK);
    CHECK(put_state(&f, 0, 1, &(struct state){true, 2, 3000, 0}) == OORT_OK);
    CHECK(list_files(p.data, ".log", names, 8) == 2);
    (void)snprintf(path, sizeof path, "%s/%s", p.data, names[0]);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, "\xff", 1, (off_t)(SEGMENT_HEADER_BYTES + in_record)) == 1);
    CHECK(close(fd) == 0);
    if (rebuilt) {
        close_store(&f);
        (void)snprintf(index, sizeof index, "%s/index", p.data);
        CHECK(unlink(index) == 0);
        open_store(&f);
    }
    CHECK(oort_store_compact(f.store, 1, &error) >= 0);
    CHECK(access(path, F_OK) == 0 && said(&f, "will not be compacted"));
    close_store(&f);
    directories_remove(&p);
}

/* The index has lost the entries of many values.  Compaction must not take that for a deletion. */
static void test_silent_index(void)
{
    directories p;
    char path[512], name[32];
    oort_error error = {0};
    directories_make(&p);
    fixture f = in_directories(&p);
    memset(model, 0, sizeof model);
    open_store(&f);
    oort_session_set_clock(f.session, 0);
    for (uint32_t i = 0; i < 200; i++) {
        model[0][i] = (struct state){.present = i % 2 == 0, .version = i + 1, .size = 1000};
        CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
    }
    for (uint32_t i = 1; i < 200; i += 2)
        CHECK(drop(&f, model_key(name, 0, i)) == OORT_OK);
    close_store(&f);

    (void)snprintf(path, sizeof path, "%s/index", p.data);
    oort_index *index = index_open(path, 0, &error);
    CHECK(index != NULL);
    for (uint32_t i = 0; i < 200; i += 2) {
        oort_key key = model_key(name, 0, i);
        index_cursor cursor;
        index_entry entry;
        index_seek(index, key.hash, 0, &cursor);
        CHECK(index_next(index, &cursor, &entry));
        index_erase(index, &cursor);
    }
    CHECK(index_close(index, true, &error) == OORT_OK);

    open_store(&f);
    CHECK(stats_of(&f).recovery == 0);
    CHECK(oort_store_compact(f.store, 1, &error) >= 0);
    uint64_t compactions = stats_of(&f).compactions;
    CHECK(compactions > 0 && said(&f, "the index knows neither"));
    /* The values that compaction kept are not copied again and again. */
    CHECK(oort_store_compact(f.store, 1, &error) >= 0);
    CHECK(stats_of(&f).compactions == compactions);
    close_store(&f);
    CHECK(unlink(path) == 0);
    open_store(&f);
    CHECK(stats_of(&f).recovery == 2);
    check_model(&f, model);
    close_store(&f);
    directories_remove(&p);
}

/* ---- what explains that a value is dead ---------------------------------------------- */

/* A flush of one database must not make the index forget the deleted keys of another database. */
static void test_flush_beside_dead_keys(void)
{
    directories p;
    char name[32], path[192];
    oort_error error;
    directories_make(&p);
    fixture f = in_directories(&p);
    memset(model, 0, sizeof model);
    open_store(&f);
    for (uint32_t i = 0; i < 40; i++)
        CHECK(put_state(&f, 1, i, &(struct state){true, 1, 1000, 0}) == OORT_OK);
    close_store(&f); /* seals the segment */
    open_store(&f);
    for (uint32_t i = 0; i < 40; i++)
        CHECK(drop(&f, model_key(name, 1, i)) == OORT_OK);
    CHECK(oort_store_flush(f.session, 0) == OORT_OK);
    CHECK(oort_store_compact(f.store, 1, &error) >= 0);
    CHECK(!said(&f, "the index knows neither"));
    close_store(&f);
    (void)snprintf(path, sizeof path, "%s/index", p.data);
    CHECK(unlink(path) == 0);
    open_store(&f);
    check_model(&f, model);
    close_store(&f);
    directories_remove(&p);
}

/* The segments hold values, the tombstones of some of them and expired values.  Kills a compaction
 * when it is about to remove its file number `file`. */
static void kill_compaction(directories *p, uint32_t file)
{
    char name[32];
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        oort_error error;
        fixture f = in_directories(p);
        open_store(&f);
        for (uint32_t i = 0; i < 100; i++) {
            struct state state = {true, i + 1, 1000, i % 3 == 0 ? START_MS + 5 : 0};
            CHECK(put_state(&f, 0, i, &(struct state){true, i + 500, 100, 0}) == OORT_OK);
            CHECK(put_state(&f, 0, i, &state) == OORT_OK);
        }
        for (uint32_t i = 1; i < 100; i += 3)
            CHECK(drop(&f, model_key(name, 0, i)) == OORT_OK);
        close_store(&f); /* seals the segments */
        open_store(&f);
        oort_session_set_clock(f.session, START_US + 10000);
        for (uint32_t i = 0; i < 100; i++)
            CHECK(same_state(&f, 0, i, &model[0][i]));
        atomic_store(&unlinks_until_kill, file);
        CHECK(oort_store_compact(f.store, 1, &error) >= 0);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* After a kill of a compaction the index still explains every dead value in the log. */
static void test_kill_in_compaction(void)
{
    char path[192];
    oort_error error;
    memset(model, 0, sizeof model);
    for (uint32_t i = 2; i < 100; i += 3)
        model[0][i] = (struct state){true, i + 1, 1000, 0};
    for (uint32_t file = 1; file <= 4; file++) {
        directories p;
        directories_make(&p);
        fixture f = in_directories(&p);
        kill_compaction(&p, file);
        open_store(&f);
        CHECK(stats_of(&f).recovery == 1);
        oort_session_set_clock(f.session, START_US + 10000);
        check_model(&f, model);
        CHECK(oort_store_compact(f.store, 1, &error) >= 0);
        close_store(&f);
        open_store(&f);
        CHECK(oort_store_compact(f.store, 1, &error) >= 0);
        CHECK(!said(&f, "the index knows neither"));
        close_store(&f);
        (void)snprintf(path, sizeof path, "%s/index", p.data);
        CHECK(unlink(path) == 0);
        open_store(&f);
        CHECK(stats_of(&f).recovery == 2);
        oort_session_set_clock(f.session, START_US + 10000);
        check_model(&f, model);
        close_store(&f);
        directories_remove(&p);
    }
}

int main(void)
{
    /* kind, key size, key, value */
    static const size_t offsets[] = {4, 8, 33, 200};
    for (size_t i = 0; i < 2 * sizeof offsets / sizeof *offsets; i++)
        test_damaged_target(offsets[i / 2], i % 2 == 1);
    test_dead_segments_are_not_read();
    test_expiry_meanwhile();
    test_silent_index();
    test_flush_beside_dead_keys();
    test_kill_in_compaction();
    test_schedules();
    return 0;
}
