/*
 * test_disk.c: a disk that is full, that fails, or that is slow to read.
 *
 * The full disk is a small tmpfs.  Mounting it needs root; without root a limit on file sizes makes
 * every new segment fail.  The program replaces fdatasync and fsync with its own, which fail on
 * demand.
 */
#include "tests/recovery_suite.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define KEYS 400u

static struct state model[MODEL_DATABASES][MODEL_KEYS];
static _Atomic bool device_waits;
static _Atomic int device_error; /* errno of the device's error, 0: the device works */

/* Replaces the C library's function. */
int fdatasync(int fd)
{
    while (atomic_load(&device_waits))
        (void)usleep(1000);
    if (atomic_load(&device_error) == 0)
        return (int)syscall(SYS_fdatasync, fd);
    errno = atomic_load(&device_error);
    return -1;
}

int fsync(int fd)
{
    if (atomic_load(&device_error) == 0)
        return (int)syscall(SYS_fsync, fd);
    errno = atomic_load(&device_error);
    return -1;
}

/* ---- full -------------------------------------------------------------------------- */

/* Writes until the disk is full.  No other error may occur. */
static uint32_t fill_up(fixture *f, uint32_t *version)
{
    uint32_t written = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t number = i % MODEL_KEYS, database = i / MODEL_KEYS % MODEL_DATABASES;
        struct state fresh = {.present = true, .version = ++*version, .size = 3000};
        int32_t status = put_state(f, database, number, &fresh);
        if (status == OORT_ERR_FULL) {
            CHECK(strstr(oort_session_error(f->session), "free") != NULL);
            return written;
        }
        CHECK(status == OORT_OK);
        model[database][number] = fresh;
        written++;
    }
    return written;
}

static void test_full(void)
{
    directories p;
    oort_error error;
    uint32_t version = 0, written;
    struct rlimit before, limit;
    directories_make(&p);
    bool mounted = mount("tmpfs", p.data, "tmpfs", 0, "size=8m") == 0;
    fixture f = in_directories(&p);
    memset(model, 0, sizeof model);
    open_store(&f);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    if (!mounted) {
        for (uint32_t i = 0; i < 900; i++)
            CHECK(put_state(&f, 0, i % 300, &(struct state){true, 1, 3000, 0}) == OORT_OK);
        for (uint32_t i = 0; i < 300; i++)
            model[0][i] = (struct state){true, 1, 3000, 0};
        limit = before;
        limit.rlim_cur = 32768;
        (void)signal(SIGXFSZ, SIG_IGN);
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    written = fill_up(&f, &version);
    CHECK(written < 20000);
    check_model(&f, model);
    CHECK(stats_of(&f).failed == 0);
    if (!mounted) {
        CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    } else {
        /* The disk is completely full.  Everything written is there, also after a restart, clean or
         * not. */
        (void)oort_session_close(f.session);
        (void)oort_store_close(f.store, &error);
        open_store(&f);
        check_model(&f, model);
        close_store(&f);
        CHECK(umount(p.data) == 0);
        CHECK(mount("tmpfs", p.data, "tmpfs", 0, "size=8m") == 0);

        /* Below the watermark there is room left to delete and to compact. */
        memset(model, 0, sizeof model);
        f.config.free_bytes_low = 2u << 20;
        f.config.background = 1;
        f.config.compaction_bytes_per_second = 1u << 30;
        open_store(&f);
        oort_session_set_clock(f.session, 0);
        /* The watermark is checked once a second, so the test must not write faster. */
        for (uint32_t i = 0; i < MODEL_DATABASES * MODEL_KEYS && stats_of(&f).read_only == 0; i++) {
            struct state fresh = {.present = true, .version = ++version, .size = 4500};
            int32_t status = put_state(&f, i / MODEL_KEYS, i % MODEL_KEYS, &fresh);
            CHECK(status == OORT_OK || status == OORT_ERR_FULL);
            if (status == OORT_OK)
                model[i / MODEL_KEYS][i % MODEL_KEYS] = fresh;
            if (stats_of(&f).log_bytes > 4u << 20)
                (void)usleep(4000);
        }
        for (int i = 0; i < 500 && stats_of(&f).read_only == 0; i++)
            (void)usleep(10000);
        CHECK(stats_of(&f).read_only == 1);
        CHECK(put_state(&f, 0, 1, &model[0][1]) == OORT_ERR_FULL);
        CHECK(strstr(oort_session_error(f.session), "free") != NULL);
        CHECK(said(&f, "watermark"));
        check_model(&f, model);
        for (uint32_t i = 0; i < MODEL_DATABASES * MODEL_KEYS; i++) {
            char name[32];
            if (i % 8 == 0)
                continue;
            CHECK(drop(&f, model_key(name, i / MODEL_KEYS, i % MODEL_KEYS)) >= 0);
            model[i / MODEL_KEYS][i % MODEL_KEYS].present = false;
        }
        for (int i = 0; i < 1500 && stats_of(&f).read_only == 1; i++)
            (void)usleep(10000);
        CHECK(stats_of(&f).read_only == 0);
        model[0][1] = (struct state){.present = true, .version = ++version, .size = 3000};
        CHECK(put_state(&f, 0, 1, &model[0][1]) == OORT_OK);
        check_model(&f, model);
    }
    close_store(&f);
    if (mounted)
        CHECK(umount(p.data) == 0);
    directories_remove(&p);
}

/* ---- failing ------------------------------------------------------------------------- */

static void test_failing(int32_t background, int failure)
{
    directories p;
    oort_error error = {0};
    directories_make(&p);
    fixture f = in_directories(&p);
    f.config.fsync = OORT_FSYNC_ALWAYS;
    f.config.background = background;
    memset(model, 0, sizeof model);
    open_store(&f);
    for (uint32_t i = 0; i < KEYS; i++) {
        model[0][i] = (struct state){.present = true, .version = i + 1, .size = 500};
        CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
    }
    uint64_t ticket = oort_session_ticket(f.session);
    while (oort_store_synced(f.store) < ticket)
        (void)usleep(1000);
    atomic_store(&device_error, failure);
    struct state fresh = {.present = true, .version = 9999, .size = 10};
    CHECK(put_state(&f, 0, 0, &fresh) == OORT_OK);
    ticket = oort_session_ticket(f.session);
    CHECK(ticket != 0);
    while (oort_store_synced(f.store) < ticket)
        (void)usleep(1000);
    CHECK(oort_store_synced(f.store) == UINT64_MAX);
    CHECK(stats_of(&f).failed == -OORT_ERR_IO);
    /* The device may work again, but nobody knows which pages were lost meanwhile. */
    atomic_store(&device_error, 0);
    CHECK(put_state(&f, 0, 1, &fresh) == OORT_ERR_FAILED);
    char name[32];
    CHECK(drop(&f, model_key(name, 0, 2)) == OORT_ERR_FAILED);
    CHECK(oort_store_flush(f.session, -1) == OORT_ERR_FAILED);
    CHECK(oort_store_sync(f.store, &error) == OORT_ERR_FAILED);
    CHECK(oort_store_synced(f.store) == UINT64_MAX);
    CHECK(same_state(&f, 0, 1, &model[0][1]));
    CHECK(said(&f, "restart"));
    oort_session_close(f.session);
    CHECK(oort_store_close(f.store, &error) != OORT_OK);
    open_store(&f);
    CHECK(stats_of(&f).recovery == 2 && stats_of(&f).failed == 0);
    for (uint32_t i = 1; i < KEYS; i++)
        CHECK(same_state(&f, 0, i, &model[0][i]));
    CHECK(same_state(&f, 0, 0, &model[0][0]) || same_state(&f, 0, 0, &fresh));
    close_store(&f);
    directories_remove(&p);
}

/* The sync of a full segment fails while the segment is sealed.  That is as final as any failed
 * sync, whatever errno is. */
static void test_failing_seal(int failure)
{
    directories p;
    oort_error error = {0};
    directories_make(&p);
    fixture f = in_directories(&p);
    f.config.fsync = OORT_FSYNC_NO;
    memset(model, 0, sizeof model);
    open_store(&f);
    atomic_store(&device_error, failure);
    int32_t status = OORT_OK;
    for (uint32_t i = 0; i < MODEL_KEYS && status == OORT_OK; i++) {
        struct state fresh = {.present = true, .version = i + 1, .size = 1000};
        status = put_state(&f, 0, i, &fresh);
    }
    CHECK(status == OORT_ERR_FAILED);
    CHECK(stats_of(&f).failed == -OORT_ERR_IO);
    CHECK(said(&f, "restart"));
    atomic_store(&device_error, 0);
    oort_session_close(f.session);
    CHECK(oort_store_close(f.store, &error) != OORT_OK);
    directories_remove(&p);
}

/* ---- slow ------------------------------------------------------------------------------ */

static void *flush_all(void *session)
{
    CHECK(oort_store_flush(session, -1) == OORT_OK);
    return NULL;
}

/* With "always", a client that learns that a key is gone waits until the removal is durable.
 * It does not matter which client removed the key. */
static void test_absence_waits(void)
{
    directories p;
    pthread_t thread;
    oort_error error = {0};
    directories_make(&p);
    fixture f = in_directories(&p);
    f.config.fsync = OORT_FSYNC_ALWAYS;
    f.config.background = 1;
    open_store(&f);
    fixture other = f;
    other.session = oort_session_open(f.store, &error);
    CHECK(other.session != NULL);
    CHECK(put_text(&f, named("dropped"), "it") == OORT_OK);
    CHECK(put_text(&f, named("flushed"), "it") == OORT_OK);
    CHECK(oort_store_sync(f.store, &error) == OORT_OK);
    CHECK(missing(&other, named("dropped again")) && oort_session_ticket(other.session) == 0);
    atomic_store(&device_waits, true);
    CHECK(drop(&f, named("dropped")) == OORT_OK);
    CHECK(missing(&other, named("dropped")) && oort_session_ticket(other.session) != 0);
    CHECK(drop(&other, named("dropped")) == OORT_MISSING);
    CHECK(oort_session_ticket(other.session) != 0);
    atomic_store(&device_waits, false);
    CHECK(oort_store_sync(f.store, &error) == OORT_OK);
    CHECK(missing(&other, named("dropped")) && oort_session_ticket(other.session) == 0);
    atomic_store(&device_waits, true);
    CHECK(pthread_create(&thread, NULL, flush_all, f.session) == 0);
    while (!missing(&other, named("flushed")))
        (void)usleep(1000);
    CHECK(oort_session_ticket(other.session) != 0);
    atomic_store(&device_waits, false);
    CHECK(pthread_join(thread, NULL) == 0);
    oort_session_close(other.session);
    close_store(&f);
    directories_remove(&p);
}

struct committer {
    fixture f;
    uint32_t number;
};

/* Writes, waits for the sync as a data plane does, and reads.  The read needs no further wait. */
static void *commit_many(void *context)
{
    struct committer *self = context;
    oort_error error = {0};
    self->f.session = oort_session_open(self->f.store, &error);
    CHECK(self->f.session != NULL);
    oort_session_set_clock(self->f.session, START_US);
    for (uint32_t version = 1; version <= 300; version++) {
        struct state state = {.present = true, .version = version, .size = 700};
        CHECK(put_state(&self->f, 0, self->number, &state) == OORT_OK);
        uint64_t ticket = oort_session_ticket(self->f.session);
        CHECK(ticket != 0);
        if (version % 3 == 0 || oort_store_sync_here(self->f.store, -1) == 0)
            oort_store_request_sync(self->f.store, ticket);
        while (oort_store_synced(self->f.store) < ticket)
            (void)usleep(50);
        CHECK(same_state(&self->f, 0, self->number, &state));
        CHECK(oort_session_ticket(self->f.session) == 0);
    }
    oort_session_close(self->f.session);
    return NULL;
}

static void test_committing_together(void)
{
    directories p;
    pthread_t threads[4];
    struct committer committers[4];
    directories_make(&p);
    fixture f = in_directories(&p);
    f.config.fsync = OORT_FSYNC_ALWAYS;
    f.config.background = 1;
    open_store(&f);
    for (uint32_t i = 0; i < 4; i++) {
        committers[i] = (struct committer){.f = f, .number = i};
        CHECK(pthread_create(&threads[i], NULL, commit_many, &committers[i]) == 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    close_store(&f);
    directories_remove(&p);
}

/* ---- cold ---------------------------------------------------------------------------- */

static void drop_cache(const char *directory)
{
    static char names[256][32];
    char path[512];
    for (size_t i = list_files(directory, ".log", names, 256); i-- > 0;) {
        (void)snprintf(path, sizeof path, "%.400s/%.31s", directory, names[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        (void)syscall(SYS_fsync, fd);
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        CHECK(close(fd) == 0);
    }
}

static void test_cold(void)
{
    fixture f = {.open = oort_valuestore_open};
    char name[32];
    int cold = 0;
    static uint8_t large[3 << 20];
    (void)snprintf(f.directory, sizeof f.directory, "/var/tmp/test_disk.XXXXXX");
    CHECK(mkdtemp(f.directory) != NULL);
    f.config = (oort_store_config){
        .directory = f.directory, .segment_bytes = 1 << 16, .free_bytes_low = 1};
    memset(model, 0, sizeof model);
    open_store(&f);
    for (uint32_t i = 0; i < KEYS; i++) {
        model[0][i] = (struct state){.present = true, .version = i + 1, .size = 3000};
        CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
    }
    memset(large, 'x', sizeof large);
    CHECK(put(&f, key_of("large", 5, 5), large, sizeof large, 0) == OORT_OK);
    close_store(&f);
    f.config.background = 1; /* starts the residency clock */
    open_store(&f);
    drop_cache(f.directory);
    /* A call that does not need the bytes of a large value does not wait for them. */
    for (int32_t status = OORT_COLD; status != OORT_OK;) {
        oort_key key = key_of("large", 5, 5);
        oort_value value;
        CHECK(oort_lock(f.session, &key, 1) == OORT_OK);
        status = oort_look(f.session, &key, &value);
        oort_cold wanted = oort_session_cold(f.session);
        oort_unlock(f.session);
        CHECK(status == OORT_OK ? value.size == sizeof large : status == OORT_COLD);
        CHECK(status == OORT_OK || (wanted.size < 4096 && oort_fetch(f.store, wanted) == OORT_OK));
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        oort_key key = model_key(name, 0, i);
        oort_value value;
        CHECK(oort_lock(f.session, &key, 1) == OORT_OK);
        int32_t status = oort_read(f.session, &key, &value);
        cold += status == OORT_COLD;
        CHECK(status == OORT_COLD || status == OORT_OK);
        oort_unlock(f.session);
        CHECK(same_state(&f, 0, i, &model[0][i]));
    }
    CHECK(holds(&f, key_of("large", 5, 5), large, sizeof large));
    /* A cold key can be overwritten, get another expiry, and be removed. */
    close_store(&f);
    open_store(&f);
    drop_cache(f.directory);
    for (uint32_t i = 0; i < KEYS; i += 3) {
        model[0][i].version += 5000;
        CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
        model[0][i + 1].present = i + 1 >= KEYS;
        CHECK(i + 1 >= KEYS || drop(&f, model_key(name, 0, i + 1)) == OORT_OK);
    }
    drop_cache(f.directory);
    CHECK(drop(&f, key_of("large", 5, 5)) == OORT_OK);
    for (uint32_t i = 0; i < KEYS; i++)
        CHECK(same_state(&f, 0, i, &model[0][i]));
    close_store(&f);
    remove_directory(f.directory);
    if (cold == 0)
        printf("  this file system keeps its pages: no read was cold\n");
}

/* Several large values can be read under one lock: checking one value does not discard the result
 * for another. */
static void test_large_together(void)
{
    fixture f = {.open = oort_valuestore_open};
    static uint8_t large[2 << 20];
    char names[8][24];
    oort_key keys[8];
    int rounds = 0;
    (void)snprintf(f.directory, sizeof f.directory, "/var/tmp/test_disk.XXXXXX");
    CHECK(mkdtemp(f.directory) != NULL);
    f.config = (oort_store_config){
        .directory = f.directory, .segment_bytes = 1 << 16, .free_bytes_low = 1, .background = 1};
    open_store(&f);
    for (int i = 0; i < 8; i++) {
        (void)snprintf(names[i], sizeof names[i], "large%d", i);
        keys[i] = named(names[i]);
        memset(large, 'a' + i, sizeof large);
        CHECK(put(&f, keys[i], large, sizeof large, 0) == OORT_OK);
    }
    for (bool together = false; !together;) {
        CHECK(rounds++ < 100);
        CHECK(oort_lock(f.session, keys, 8) == OORT_OK);
        together = true;
        for (int i = 0; i < 8 && together; i++) {
            oort_value value;
            int32_t status = oort_read(f.session, &keys[i], &value);
            CHECK(status == OORT_OK || status == OORT_COLD);
            together = status == OORT_OK;
            CHECK(!together || (value.size == sizeof large && value.data[7] == 'a' + i));
        }
        oort_cold cold = oort_session_cold(f.session);
        oort_unlock(f.session);
        CHECK(together || oort_fetch(f.store, cold) == OORT_OK);
    }
    close_store(&f);
    remove_directory(f.directory);
}

/* ---- pins ------------------------------------------------------------------------------ */

/* A pinned value outlives the compaction of its segment.  The space comes back after the unpin. */
static void test_pins(void)
{
    directories p;
    oort_error error;
    oort_value value;
    static uint8_t expected[3000];
    directories_make(&p);
    fixture f = in_directories(&p);
    memset(model, 0, sizeof model);
    open_store(&f);
    for (uint32_t round = 1; round <= 40; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            model[0][i] =
                (struct state){.present = true, .version = round * 1000 + i, .size = 3000};
            CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
            if (round == 1 && i == 50) {
                char name[32];
                oort_key key = model_key(name, 0, i);
                CHECK(look(&f, &key, &value) == OORT_OK);
                oort_pin(f.session, &value);
                oort_unlock(f.session);
            }
        }
        CHECK(oort_store_compact(f.store, 20, &error) >= 0);
        struct store_reading stats = stats_of(&f);
        CHECK(stats.log_bytes < 2u * 100 * 3100);
        CHECK(stats.live_bytes >= 100 * 3000 && stats.live_bytes <= stats.log_bytes);
    }
    fill_value(expected, 1050, 3000);
    CHECK(value.size == 3000 && memcmp(value.data, expected, 3000) == 0);
    oort_unpin(f.store, &value);
    CHECK(stats_of(&f).compactions > 20);
    check_model(&f, model);
    close_store(&f);
    directories_remove(&p);
}

/* ---- tombstone age ----------------------------------------------------------------------- */

static void test_tombstone_age(void)
{
    oort_error error;
    static const uint32_t ages[] = {0, 40u * 365 * 86400}; /* the clock of the test is in 2023 */
    for (int which = 0; which < 2; which++) {
        uint32_t age = ages[which];
        directories p;
        directories_make(&p);
        fixture f = in_directories(&p);
        f.config.tombstone_age_seconds = age;
        open_store(&f);
        CHECK(put_text(&f, named("k"), "v") == OORT_OK);
        CHECK(drop(&f, named("k")) == OORT_OK);
        for (int i = 0; i < 3; i++) {
            close_store(&f);
            open_store(&f);
            CHECK(oort_store_compact(f.store, 1, &error) >= 0);
        }
        /* No older value exists, so only its age keeps the tombstone. */
        CHECK((stats_of(&f).segments != 0) == (age != 0));
        CHECK(missing(&f, named("k")));
        close_store(&f);
        directories_remove(&p);
    }
}

int main(void)
{
    test_pins();
    test_tombstone_age();
    test_failing(0, EIO);
    test_failing(1, EIO);
    test_failing(1, ENOSPC);
    test_failing_seal(EIO);
    test_failing_seal(EDQUOT);
    test_absence_waits();
    test_committing_together();
    test_cold();
    test_large_together();
    test_full();
    return 0;
}
