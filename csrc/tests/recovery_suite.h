/*
 * recovery_suite.h: shared by the tests of the persistent store's recovery: a model of the expected
 * content, the comparison of a store with it, and changes of the data directory behind the store's
 * back (copies, bit flips).
 *
 * The directories are in /dev/shm, because the fast restart needs a tmpfs and many rounds need
 * speed.
 */
#ifndef OORT_TESTS_RECOVERY_SUITE_H
#define OORT_TESTS_RECOVERY_SUITE_H

#include "tests/store_suite.h"

#include "log/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/stat.h>

#define MODEL_KEYS 512u
#define MODEL_DATABASES 4u

/* A value follows from its version and size, so the model does not store it. */
struct state {
    bool present;
    uint32_t version;
    uint32_t size;
    int64_t expiry_ms;
};

typedef struct directories {
    char base[64];
    char data[96];
    char run[96];
    int held; /* a descriptor of data: evidence after a kill that no kernel has to give */
} directories;

static inline void directories_make(directories *p)
{
    (void)snprintf(p->base, sizeof p->base, "/dev/shm/oort_test.XXXXXX");
    CHECK(mkdtemp(p->base) != NULL);
    (void)snprintf(p->data, sizeof p->data, "%s/data", p->base);
    (void)snprintf(p->run, sizeof p->run, "%s/run", p->base);
    CHECK(mkdir(p->data, 0700) == 0 && mkdir(p->run, 0700) == 0);
    p->held = open(p->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(p->held > 0);
}

static inline void directories_remove(directories *p)
{
    CHECK(close(p->held) == 0);
    CHECK(nftw(p->base, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

static inline fixture in_directories(directories *p)
{
    fixture f = {.open = oort_valuestore_open};
    (void)snprintf(f.directory, sizeof f.directory, "%.60s", p->data);
    f.config = (oort_store_config){.directory = p->data,
                                   .runtime_directory = p->run,
                                   .held_directory = p->held,
                                   .segment_bytes = 1 << 16,
                                   .free_bytes_low = 1};
    return f;
}

/* ---- files ----------------------------------------------------------------- */

static inline uint8_t *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    CHECK(fd >= 0 && fstat(fd, &status) == 0);
    *size = (size_t)status.st_size;
    uint8_t *bytes = malloc(*size + 1);
    CHECK(bytes != NULL);
    for (size_t done = 0; done < *size;) {
        ssize_t got = pread(fd, bytes + done, *size - done, (off_t)done);
        CHECK(got > 0);
        done += (size_t)got;
    }
    CHECK(close(fd) == 0);
    return bytes;
}

static inline void write_file(const char *path, const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    for (size_t done = 0; done < size;) {
        ssize_t put_bytes = pwrite(fd, bytes + done, size - done, (off_t)done);
        CHECK(put_bytes > 0);
        done += (size_t)put_bytes;
    }
    CHECK(close(fd) == 0);
}

/* The names in a directory that have this suffix, sorted (segments: oldest first). */
static inline size_t list_files(const char *directory, const char *suffix, char names[][32],
                                size_t most)
{
    struct dirent **found;
    size_t count = 0;
    int total = scandir(directory, &found, NULL, alphasort);
    CHECK(total >= 0);
    for (int i = 0; i < total; i++) {
        size_t length = strlen(found[i]->d_name);
        if (found[i]->d_name[0] != '.' && length < 32 && length >= strlen(suffix) &&
            strcmp(found[i]->d_name + length - strlen(suffix), suffix) == 0 && count < most)
            (void)snprintf(names[count++], 32, "%.31s", found[i]->d_name);
        free(found[i]);
    }
    free(found);
    return count;
}

static inline void copy_directory(const char *from, const char *to)
{
    static char names[4096][32];
    char source[512], target[512];
    size_t count = list_files(from, "", names, 4096);
    CHECK(count < 4096);
    CHECK(mkdir(to, 0700) == 0);
    for (size_t i = 0; i < count; i++) {
        size_t size;
        (void)snprintf(source, sizeof source, "%.400s/%.31s", from, names[i]);
        (void)snprintf(target, sizeof target, "%.400s/%.31s", to, names[i]);
        /* A background thread may have removed the file after it was listed. */
        if (access(source, F_OK) != 0)
            continue;
        uint8_t *bytes = read_file(source, &size);
        write_file(target, bytes, size);
        free(bytes);
    }
}

static inline void remove_directory(const char *path)
{
    CHECK(nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

/* ---- the model --------------------------------------------------------------- */

static inline void fill_value(uint8_t *out, uint32_t version, uint32_t size)
{
    uint64_t state = version * UINT64_C(0x9e3779b97f4a7c15) + size;
    for (uint32_t i = 0; i < size; i++)
        out[i] = (uint8_t)(i % 8 == 0 ? (state = state * 6364136223846793005u + 1) >> 33
                                      : state >> i % 8 * 8);
}

/* The keys share a few hash tags, so they crowd a few slots of the index and make buckets split. */
static inline oort_key model_key(char *name, uint32_t database, uint32_t number)
{
    int size = snprintf(name, 32, "{%u}key:%u", number % 3, number);
    return key_of(name, (size_t)size, (uint8_t)database);
}

static inline bool state_alive(const struct state *state, int64_t now_ms)
{
    return state->present && (state->expiry_ms == 0 || state->expiry_ms > now_ms);
}

/* Whether the store holds exactly this state of the key. */
static inline bool same_state(fixture *f, uint32_t database, uint32_t number,
                              const struct state *expected)
{
    char name[32];
    static _Thread_local uint8_t bytes[1 << 18];
    oort_key key = model_key(name, database, number);
    oort_value value;
    int32_t status = look(f, &key, &value);
    bool same;
    if (!state_alive(expected, oort_session_now_ms(f->session))) {
        same = status == OORT_MISSING;
    } else {
        fill_value(bytes, expected->version, expected->size);
        same = status == OORT_OK && value.size == expected->size &&
               value.expiry_ms == expected->expiry_ms &&
               memcmp(value.data, bytes, expected->size) == 0;
    }
    oort_unlock(f->session);
    return same;
}

static inline uint64_t scan_count(fixture *f, uint32_t database)
{
    static uint8_t buffer[1 << 18];
    uint64_t total = 0;
    oort_scan scan = {.want = 100, .buffer = buffer, .capacity = sizeof buffer};
    do {
        CHECK(oort_store_scan(f->session, (uint8_t)database, &scan) == OORT_OK);
        total += scan.count;
    } while (scan.position != 0);
    return total;
}

/* Checks every key, and that there are no other keys. */
static inline void check_model(fixture *f, struct state model[MODEL_DATABASES][MODEL_KEYS])
{
    for (uint32_t database = 0; database < MODEL_DATABASES; database++) {
        uint64_t alive = 0;
        for (uint32_t i = 0; i < MODEL_KEYS; i++) {
            alive += state_alive(&model[database][i], oort_session_now_ms(f->session));
            if (!same_state(f, database, i, &model[database][i])) {
                fprintf(stderr,
                        "database %u key %u: expected %s version %u size %u expiry %" PRId64 "\n",
                        database, i, model[database][i].present ? "present" : "absent",
                        model[database][i].version, model[database][i].size,
                        model[database][i].expiry_ms);
                CHECK(!"the store differs from the model");
            }
        }
        CHECK(scan_count(f, database) == alive);
        CHECK(keys_in(f, (uint8_t)database) == alive);
    }
}

static inline int32_t put_state(fixture *f, uint32_t database, uint32_t number,
                                const struct state *state)
{
    char name[32];
    static _Thread_local uint8_t bytes[1 << 18];
    fill_value(bytes, state->version, state->size);
    return put(f, model_key(name, database, number), bytes, state->size, state->expiry_ms);
}

/* ---- what the store says ------------------------------------------------------- */

static inline struct store_reading stats_of(fixture *f)
{
    struct store_reading stats;
    oort_store_get_metrics(f->store, stats.place);
    return stats;
}

/* Reads all messages.  Whether one of them contains the text. */
static inline bool said(fixture *f, const char *text)
{
    oort_event event;
    bool found = false;
    while (oort_store_next_event(f->store, &event) == 1)
        found = found || strstr(event.text, text) != NULL;
    return found;
}

static inline uint32_t test_rounds(uint32_t usual)
{
    const char *text = getenv("OORT_TEST_ROUNDS");
    return text != NULL && atoi(text) > 0 ? (uint32_t)atoi(text) : usual;
}

#endif
