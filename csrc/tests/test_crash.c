/*
 * test_crash.c: kill -9 at random moments loses nothing that was acknowledged.
 *
 * A child works on the store with several threads, each with its own session and database.
 * Segments are small and compaction is eager, so rolls, seals, compactions and index splits happen
 * all the time. Memory shared with the parent records what each thread is about to do and what was
 * acknowledged. The parent kills the child and starts the next child, which checks the store: every
 * acknowledged change is there; a change in progress is there completely or not at all.  It checks
 * a copy of the directory, whose index is rebuilt from the log, and the directory itself, which is
 * replayed.
 *
 * OORT_TEST_ROUNDS: the number of kills.
 */
#include "tests/recovery_suite.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* The sanitizers are slow.  The thread sanitizer runs this test only for its threads. */
#if defined(__SANITIZE_THREAD__)
#define KILLS 6
#define CHANGES 1000u
#elif defined(__SANITIZE_ADDRESS__)
#define KILLS 25
#define CHANGES 2000u
#else
#define KILLS 60
#define CHANGES 4000u
#endif

#define THREADS MODEL_DATABASES
#define KEYS 150u
#define BATCH_MOST 6u
#define HOUR_MS INT64_C(3600000)
#define FAR_MS (20 * HOUR_MS)

/* A change in progress: the states of its keys before and after it. */
struct change {
    _Atomic uint32_t count; /* 0: no change in progress */
    bool flush;             /* of every key: the journal has the state before it */
    uint32_t number[BATCH_MOST];
    struct state after[BATCH_MOST];
};

struct journal {
    struct {
        struct state keys[KEYS];
        struct change change;
        uint32_t version;
        _Atomic uint64_t acknowledged;
    } threads[THREADS];
    _Atomic uint32_t working; /* the child has checked the store and started */
    _Atomic uint64_t compactions, segments_sealed, replayed, rebuilt, kills_in_flight;
};

static struct journal *journal;

struct worker {
    fixture f;
    uint32_t number;
    uint32_t changes; /* number of changes; 0: until killed */
    uint64_t random;
};

static int64_t wall_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- working ----------------------------------------------------------------- */

static struct state draw(struct worker *w)
{
    uint32_t kind = next_random(&w->random) % 400;
    uint32_t far = next_random(&w->random) % 6;
    uint32_t size = kind == 0    ? 140000 + next_random(&w->random) % 1000
                    : kind < 200 ? 257 + next_random(&w->random) % 2500
                                 : next_random(&w->random) % 200;
    return (struct state){.present = true,
                          .version = ++journal->threads[w->number].version,
                          .size = size,
                          .expiry_ms = far == 0   ? wall_ms() + 20 + next_random(&w->random) % 300
                                       : far == 1 ? wall_ms() + FAR_MS
                                                  : 0};
}

static void must(struct worker *w, int32_t status)
{
    oort_event event;
    if (status == OORT_OK)
        return;
    fprintf(stderr, "status %d: %s\n", status, oort_session_error(w->f.session));
    while (oort_store_next_event(w->f.store, &event) == 1)
        fprintf(stderr, "%s\n", event.text);
    CHECK(!"a change was refused");
}

static void announce(struct worker *w, const uint32_t *numbers, const struct state *after,
                     uint32_t count)
{
    struct change *change = &journal->threads[w->number].change;
    change->flush = numbers == NULL;
    for (uint32_t i = 0; numbers != NULL && i < count; i++) {
        change->number[i] = numbers[i];
        change->after[i] = after[i];
    }
    atomic_store(&change->count, count);
}

static void acknowledge(struct worker *w)
{
    struct change *change = &journal->threads[w->number].change;
    uint32_t count = atomic_load(&change->count);
    for (uint32_t i = 0; i < (change->flush ? KEYS : count); i++) {
        if (change->flush)
            journal->threads[w->number].keys[i].present = false;
        else
            journal->threads[w->number].keys[change->number[i]] = change->after[i];
    }
    atomic_store(&change->count, 0);
    (void)atomic_fetch_add(&journal->threads[w->number].acknowledged, 1);
}

static void write_batch(struct worker *w)
{
    static _Thread_local uint8_t bytes[BATCH_MOST][4096];
    char names[BATCH_MOST][32];
    oort_key keys[BATCH_MOST];
    struct state after[BATCH_MOST];
    uint32_t numbers[BATCH_MOST], count = 2 + next_random(&w->random) % (BATCH_MOST - 1);
    uint64_t total = 0;
    int32_t status = OORT_OK;
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = (next_random(&w->random) % (KEYS / BATCH_MOST)) * BATCH_MOST + i;
        after[i] = draw(w);
        after[i].size %= 4096;
        after[i].expiry_ms = after[i].expiry_ms != 0 ? wall_ms() + FAR_MS : 0;
        keys[i] = model_key(names[i], w->number, numbers[i]);
        fill_value(bytes[i], after[i].version, after[i].size);
        total += keys[i].size + after[i].size;
    }
    announce(w, numbers, after, count);
    do {
        CHECK(oort_lock(w->f.session, keys, count) == OORT_OK);
        CHECK(oort_batch_begin(w->f.session, count, total) == OORT_OK);
        status = OORT_OK;
        for (uint32_t i = 0; i < count && status == OORT_OK; i++) {
            oort_bytes part = {bytes[i], after[i].size};
            status = oort_write(w->f.session, &keys[i], &part, 1, after[i].expiry_ms);
        }
        if (status == OORT_OK) {
            must(w, oort_batch_commit(w->f.session));
        } else {
            CHECK(status == OORT_COLD);
            oort_batch_abort(w->f.session);
            bring_in(w->f.session, w->f.store);
        }
    } while (status == OORT_COLD);
    oort_unlock(w->f.session);
    acknowledge(w);
}

static void change_something(struct worker *w)
{
    char name[32];
    uint32_t choice = next_random(&w->random) % 1000, number = next_random(&w->random) % KEYS;
    struct state *now = &journal->threads[w->number].keys[number];
    struct state after = *now;
    oort_key key = model_key(name, w->number, number);
    /* Keys that may expire at any moment are left alone, so that they do expire. */
    bool still = now->present && (now->expiry_ms == 0 || now->expiry_ms > wall_ms() + HOUR_MS);
    oort_session_set_clock(w->f.session, 0);
    if (choice < 550) {
        after = draw(w);
        announce(w, &number, &after, 1);
        must(w, put_state(&w->f, w->number, number, &after));
        acknowledge(w);
    } else if (choice < 700) {
        after.present = false;
        announce(w, &number, &after, 1);
        int32_t status = drop(&w->f, key);
        must(w, status == OORT_MISSING ? OORT_OK : status);
        acknowledge(w);
    } else if (choice < 850 && still) {
        after.expiry_ms = choice < 800 ? wall_ms() + FAR_MS : 0;
        announce(w, &number, &after, 1);
        must(w, expire(&w->f, key, after.expiry_ms));
        acknowledge(w);
    } else if (choice < 997) {
        write_batch(w);
    } else {
        announce(w, NULL, NULL, 1);
        must(w, oort_store_flush(w->f.session, (int32_t)w->number));
        acknowledge(w);
    }
}

static void *work(void *context)
{
    struct worker *w = context;
    oort_error error;
    w->f.session = oort_session_open(w->f.store, &error);
    CHECK(w->f.session != NULL);
    for (uint32_t i = 1; w->changes == 0 || i <= w->changes; i++) {
        change_something(w);
        /* Gives compaction time, so that the number of segments to check does not grow all the
         * time. */
        if (i % 16 == 0)
            (void)usleep(1000);
        /* With "always" a reply would wait for this ticket. */
        uint64_t ticket = oort_session_ticket(w->f.session);
        if (ticket != 0 && (i % 2 == 0 || oort_store_sync_here(w->f.store, -1) == 0))
            oort_store_request_sync(w->f.store, ticket);
        while (ticket != 0 && oort_store_synced(w->f.store) < ticket)
            (void)sched_yield();
    }
    oort_session_close(w->f.session);
    return NULL;
}

static void run_threads(fixture *f, struct worker workers[THREADS], pthread_t threads[THREADS],
                        uint32_t changes, uint64_t random)
{
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){
            .f = *f, .number = i, .changes = changes, .random = random * THREADS + i};
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
}

/* ---- checking ------------------------------------------------------------------- */

/* As same_state, but a key that expires between the session's clock and now may be there or not. */
static bool holds_state(fixture *f, uint32_t database, uint32_t number, const struct state *state)
{
    struct state gone = {.present = false};
    return same_state(f, database, number, state) ||
           (state->present && state->expiry_ms != 0 && state->expiry_ms <= wall_ms() &&
            same_state(f, database, number, &gone));
}

/* The outcomes of the change in progress that fit what the store holds.  The change must have
 * happened completely or not at all.  Both outcomes fit if a client cannot tell them apart, for
 * example because the value that was written has expired.  As time passes, an outcome that fits
 * continues to fit. */
enum { UNCHANGED = 1, HAPPENED = 2 };

static int outcome(fixture *f, uint32_t thread)
{
    struct change *change = &journal->threads[thread].change;
    const struct state *keys = journal->threads[thread].keys;
    struct state gone = {.present = false};
    uint32_t before = 0, after = 0, count = atomic_load(&change->count);
    uint32_t touched = change->flush ? KEYS : count;
    if (count == 0)
        return UNCHANGED;
    for (uint32_t i = 0; i < touched; i++) {
        uint32_t number = change->flush ? i : change->number[i];
        before += holds_state(f, thread, number, &keys[number]);
        after += holds_state(f, thread, number, change->flush ? &gone : &change->after[i]);
    }
    if (before != touched && after != touched)
        fprintf(stderr,
                "database %u: of %u keys of a %s %u are as before, %u as after, recovery %d\n",
                thread, touched, change->flush ? "flush" : "change", before, after,
                (int)stats_of(f).recovery);
    CHECK(before == touched || after == touched);
    return (before == touched ? UNCHANGED : 0) | (after == touched ? HAPPENED : 0);
}

static void check_journal(fixture *f, int outcomes[THREADS])
{
    oort_session_set_clock(f->session, 0);
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        const struct change *change = &journal->threads[thread].change;
        uint32_t count = atomic_load(&change->count);
        outcomes[thread] = outcome(f, thread);
        for (uint32_t i = 0; i < KEYS; i++) {
            bool touched = count != 0 && change->flush;
            for (uint32_t j = 0; j < count && !change->flush; j++)
                touched = touched || change->number[j] == i;
            if (!touched && !holds_state(f, thread, i, &journal->threads[thread].keys[i])) {
                const struct state *state = &journal->threads[thread].keys[i];
                fprintf(stderr,
                        "database %u key %u: expected %s version %u size %u expiry %" PRId64
                        ", recovery %d\n",
                        thread, i, state->present ? "present" : "absent", state->version,
                        state->size, state->expiry_ms, (int)stats_of(f).recovery);
                CHECK(!"an acknowledged change is lost");
            }
        }
    }
}

/* No key is there twice, and no unknown key is there.  Keys that expire meanwhile may be counted or
 * not. */
static void check_counts(fixture *f)
{
    for (uint32_t database = 0; database < MODEL_DATABASES; database++) {
        uint64_t stays = 0, most = 0;
        for (uint32_t i = 0; i < KEYS; i++) {
            const struct state *state = &journal->threads[database].keys[i];
            stays += state->present &&
                     (state->expiry_ms == 0 || state->expiry_ms > wall_ms() + HOUR_MS);
            most += state_alive(state, oort_session_now_ms(f->session));
        }
        CHECK(scan_count(f, database) >= stays && scan_count(f, database) <= most);
        CHECK(keys_in(f, (uint8_t)database) >= stays && keys_in(f, (uint8_t)database) <= most);
    }
}

/* The result of the first check is the expected state of the next one.  If both outcomes fit, a
 * client cannot tell them apart later either. */
static void settle(const int outcomes[THREADS])
{
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        struct worker w = {.number = thread};
        if (outcomes[thread] == HAPPENED)
            acknowledge(&w);
        atomic_store(&journal->threads[thread].change.count, 0);
    }
}

static void *compact_always(void *store)
{
    oort_error error;
    for (;;) {
        CHECK(oort_store_compact(store, 20, &error) >= 0);
        (void)usleep(1000);
    }
    return NULL;
}

static void child(directories *p, uint64_t random, bool first, bool fast)
{
    fixture f = in_directories(p), copy;
    int outcomes[THREADS], same[THREADS];
    char path[96];
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    static const uint64_t sizes[] = {64 << 10, 128 << 10, 256 << 10};
    f.config.segment_bytes = sizes[random % 3];
    f.config.background = 1;
    f.config.compaction_dead_percent = 20;
    f.config.compaction_bytes_per_second = 1u << 30;
    f.config.fsync = (int32_t)(random / 3 % 3);
    (void)snprintf(path, sizeof path, "%s/copy", p->base);
    if (!first) {
        copy_directory(p->data, path);
        copy = f;
        copy.config.directory = path;
        copy.config.runtime_directory = NULL;
        copy.config.background = 0;
        open_store(&copy);
        CHECK(stats_of(&copy).recovery == 2 && stats_of(&copy).damaged_records == 0);
        check_journal(&copy, outcomes);
        close_store(&copy);
        remove_directory(path);
    }
    open_store(&f);
    CHECK(first || stats_of(&f).recovery == (fast ? 1 : 2));
    if (!first) {
        check_journal(&f, same);
        for (uint32_t i = 0; i < THREADS; i++) {
            CHECK((outcomes[i] & ~same[i]) == 0);
            (void)atomic_fetch_add(&journal->kills_in_flight,
                                   atomic_load(&journal->threads[i].change.count) != 0);
        }
        settle(outcomes);
        check_counts(&f);
    }
    pthread_t compactor;
    run_threads(&f, workers, threads, 0, random);
    atomic_store(&journal->working, 1);
    /* The compaction thread is slow by design, so the test adds its own. */
    CHECK(pthread_create(&compactor, NULL, compact_always, f.store) == 0);
    for (;;) {
        struct store_reading stats = stats_of(&f);
        CHECK(stats.failed == 0 && stats.damaged_records == 0 && stats.read_only == 0);
        CHECK(!said(&f, "the index knows neither"));
        if (stats.compactions > atomic_load(&journal->compactions))
            atomic_store(&journal->compactions, stats.compactions);
        (void)usleep(1000);
    }
}

static void test_kills(uint32_t rounds)
{
    directories p;
    uint64_t random = (uint64_t)wall_ms();
    printf("  kills, seed %" PRIu64 "\n", random);
    (void)fflush(stdout);
    directories_make(&p);
    memset(journal, 0, sizeof *journal);
    uint64_t compacted = 0, acknowledged = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        int status;
        bool fast = next_random(&random) % 3 != 0;
        uint64_t seed = next_random(&random);
        atomic_store(&journal->working, 0);
        if (!fast) {
            char names[4][32], path[192];
            for (size_t i = list_files(p.run, "", names, 4); i-- > 0;) {
                (void)snprintf(path, sizeof path, "%s/%s", p.run, names[i]);
                CHECK(unlink(path) == 0);
            }
        }
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child(&p, seed, round == 0, fast);
        while (atomic_load(&journal->working) == 0 && waitpid(pid, &status, WNOHANG) == 0)
            (void)usleep(200);
        (void)usleep(next_random(&random) % 60000);
        /* A slow machine may not have compacted so far.  The last kill waits for a compaction. */
        while (round + 1 == rounds && compacted + atomic_load(&journal->compactions) == 0 &&
               waitpid(pid, &status, WNOHANG) == 0)
            (void)usleep(200);
        (void)kill(pid, SIGKILL);
        if (waitpid(pid, &status, 0) == pid)
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else
            CHECK(!"the child ended by itself");
        compacted += atomic_exchange(&journal->compactions, 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        acknowledged += atomic_load(&journal->threads[i].acknowledged);
    printf("  %u kills, %" PRIu64 " changes, %" PRIu64 " in flight, %" PRIu64 " compactions\n",
           rounds, acknowledged, atomic_load(&journal->kills_in_flight), compacted);
    CHECK(acknowledged > 0 && compacted > 0);
    directories_remove(&p);
}

/* ---- the same threads without a kill, for the thread sanitizer as well --------------- */

static void test_threads(void)
{
    directories p;
    fixture f;
    int outcomes[THREADS];
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    printf("  threads\n");
    (void)fflush(stdout);
    for (int32_t fsync = OORT_FSYNC_NO; fsync <= OORT_FSYNC_ALWAYS; fsync++) {
        oort_error error;
        directories_make(&p);
        memset(journal, 0, sizeof *journal);
        f = in_directories(&p);
        f.config.background = 1;
        f.config.compaction_dead_percent = 20;
        f.config.compaction_bytes_per_second = 1u << 30;
        f.config.fsync = fsync;
        open_store(&f);
        run_threads(&f, workers, threads, CHANGES, (uint64_t)fsync + 1);
        for (uint32_t i = 0; i < THREADS; i++) {
            CHECK(oort_store_compact(f.store, 10, &error) >= 0);
            CHECK(oort_store_sync(f.store, &error) == OORT_OK);
            CHECK(scan_count(&f, i) <= KEYS);
            CHECK(stats_of(&f).damaged_records == 0);
        }
        for (uint32_t i = 0; i < THREADS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        check_journal(&f, outcomes);
        close_store(&f);
        open_store(&f);
        CHECK(stats_of(&f).recovery == 0);
        check_journal(&f, outcomes);
        close_store(&f);
        directories_remove(&p);
    }
}

int main(void)
{
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                   0);
    CHECK(journal != MAP_FAILED);
    test_kills(test_rounds(KILLS));
    test_threads();
    return 0;
}
