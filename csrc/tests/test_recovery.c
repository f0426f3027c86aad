/*
 * test_recovery.c: opens a store after a clean stop, a copy, a power failure, or damage on disk.
 *
 * Power failure: the content of the directory right after a sync is durable.  Images that lack any
 * part of the later changes must open with all of the durable content.  Damage: bits of old records
 * flip.
 */
#include "tests/recovery_suite.h"

#include <sys/wait.h>

#define KEYS 120u

static struct state model[MODEL_DATABASES][MODEL_KEYS];
static struct state later[MODEL_DATABASES][MODEL_KEYS];

static void remove_in(const char *directory, const char *suffix)
{
    static char names[256][32];
    char path[512];
    for (size_t i = list_files(directory, suffix, names, 256); i-- > 0;) {
        (void)snprintf(path, sizeof path, "%.400s/%.31s", directory, names[i]);
        CHECK(unlink(path) == 0);
    }
}

static void change_one(fixture *f, struct state states[MODEL_DATABASES][MODEL_KEYS],
                       uint64_t *random)
{
    static uint32_t version;
    uint32_t database = next_random(random) % 2, number = next_random(random) % KEYS;
    struct state *state = &states[database][number];
    char name[32];
    if (next_random(random) % 5 == 0) {
        CHECK(drop(f, model_key(name, database, number)) >= 0);
        state->present = false;
    } else if (next_random(random) % 4 == 0 && state->present) {
        state->expiry_ms = START_MS + 1000000 + next_random(random) % 1000;
        CHECK(expire(f, model_key(name, database, number), state->expiry_ms) == OORT_OK);
    } else {
        *state = (struct state){
            .present = true, .version = ++version, .size = next_random(random) % 1500};
        CHECK(put_state(f, database, number, state) == OORT_OK);
    }
}

static void check_open(fixture *f, int32_t recovery)
{
    open_store(f);
    oort_session_set_clock(f->session, START_US);
    CHECK(stats_of(f).recovery == (uint64_t)recovery);
    check_model(f, model);
}

/* ---- which of the three ways ------------------------------------------------------ */

static void test_ways(void)
{
    directories p;
    char path[512], other[512];
    uint64_t random = 7;
    oort_error error = {0};
    size_t size;
    directories_make(&p);
    fixture f = in_directories(&p);
    memset(model, 0, sizeof model);
    open_store(&f);
    CHECK(stats_of(&f).recovery == 0);
    for (int i = 0; i < 600; i++)
        change_one(&f, model, &random);
    oort_store_config again = f.config;
    CHECK(oort_valuestore_open(&again, &error) == NULL && error.code == OORT_ERR_LOCKED);
    /* The directory itself is locked, whatever happens to its files. */
    remove_in(p.data, "lock");
    CHECK(oort_valuestore_open(&again, &error) == NULL && error.code == OORT_ERR_LOCKED);
    close_store(&f);

    check_open(&f, 0);
    /* The clock has gone back an hour.  Later writes still win. */
    oort_session_set_clock(f.session, START_US - INT64_C(3600000000));
    for (int i = 0; i < 200; i++)
        change_one(&f, model, &random);
    close_store(&f);
    remove_in(p.data, ".toc");
    check_open(&f, 2);
    close_store(&f);

    remove_in(p.data, "index");
    check_open(&f, 2);
    close_store(&f);
    /* A copy of the index is another file. */
    (void)snprintf(path, sizeof path, "%s/index", p.data);
    uint8_t *bytes = read_file(path, &size);
    (void)snprintf(other, sizeof other, "%s/index.copy", p.base);
    write_file(other, bytes, size);
    CHECK(rename(other, path) == 0);
    free(bytes);
    check_open(&f, 2);
    close_store(&f);
    (void)snprintf(other, sizeof other, "%s/moved", p.base);
    copy_directory(p.data, other);
    fixture moved = f;
    moved.config.directory = other;
    check_open(&moved, 2);
    close_store(&moved);
    check_open(&f, 0);
    close_store(&f);

    /* A directory of a newer version is refused and not changed. */
    char names[64][32];
    CHECK(list_files(p.data, ".log", names, 64) > 0);
    (void)snprintf(path, sizeof path, "%s/%s", p.data, names[0]);
    bytes = read_file(path, &size);
    segment_header header;
    memcpy(&header, bytes, sizeof header);
    header.reader_version = 99;
    header.checksum = segment_header_checksum(&header);
    memcpy(bytes, &header, sizeof header);
    write_file(path, bytes, size);
    free(bytes);
    CHECK(oort_valuestore_open(&f.config, &error) == NULL && error.code == OORT_ERR_FORMAT);
    directories_remove(&p);
}

/* ---- power failure ------------------------------------------------------------------ */

/* A record in the image must be the durable one or a later one: a key has its state at the sync or
 * at any moment since.  Values carry their version, so a later value can be told from an invented
 * one. */
static void check_image(fixture *f)
{
    for (uint32_t database = 0; database < 2; database++) {
        for (uint32_t i = 0; i < KEYS; i++) {
            bool durable = same_state(f, database, i, &model[database][i]);
            bool last = same_state(f, database, i, &later[database][i]);
            CHECK(durable || last);
        }
    }
}

/* ---- a kill, and what came between ---------------------------------------------------- */

/* Works in a separate process, which ends as if it were killed: it seals segments, and then more of
 * them. A copy of the index from between the two is left beside the data. */
static void work_and_die(directories *p, uint32_t keys)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char path[512], stale[512];
        size_t size;
        fixture f = in_directories(p);
        open_store(&f);
        for (uint32_t i = 0; i < keys; i++) {
            CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
            if (i == keys / 2) {
                (void)snprintf(path, sizeof path, "%s/index", p->data);
                (void)snprintf(stale, sizeof stale, "%s/stale", p->base);
                uint8_t *bytes = read_file(path, &size);
                write_file(stale, bytes, size);
                free(bytes);
            }
        }
        CHECK(oort_store_sync(f.store, NULL) == OORT_OK);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void fill_model(uint32_t keys)
{
    memset(model, 0, sizeof model);
    for (uint32_t i = 0; i < keys; i++)
        model[0][i] = (struct state){.present = true, .version = i + 1, .size = 1000};
}

/* The file system lost pages of the index after the kill.  The index is complete but of an earlier
 * time. */
static void test_stale_index(void)
{
    directories p;
    char path[512], stale[512];
    oort_error error = {0};
    size_t size;
    directories_make(&p);
    fill_model(400);
    work_and_die(&p, 400);
    (void)snprintf(path, sizeof path, "%s/index", p.data);
    (void)snprintf(stale, sizeof stale, "%s/stale", p.base);
    uint8_t *bytes = read_file(stale, &size);
    write_file(path, bytes, size);
    free(bytes);
    fixture f = in_directories(&p);
    check_open(&f, 2);
    CHECK(oort_store_compact(f.store, 1, &error) >= 0);
    check_model(&f, model);
    close_store(&f);
    directories_remove(&p);
}

/* Whether the kernel gives each mount a number of its own (Linux 6.8). */
static bool mounts_have_numbers(void)
{
    struct statx status;
    const unsigned unique = 0x4000; /* STATX_MNT_ID_UNIQUE, which older headers lack */
    return statx(AT_FDCWD, "/dev/shm", 0, unique, &status) == 0 && (status.stx_mask & unique) != 0;
}

/* The data directory was unmounted after the kill, so the kernel has dropped its pages.  A real
 * mount needs root, so the nonce file is changed to name another mount. */
static void test_other_mount(void)
{
    static const struct {
        bool same_mount, held;
    } cases[] = {{false, false}, {false, true}, {true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        directories p;
        char path[512];
        static char names[8][32];
        size_t size;
        directories_make(&p);
        fill_model(100);
        work_and_die(&p, 100);
        CHECK(list_files(p.run, ".nonce", names, 8) == 1);
        (void)snprintf(path, sizeof path, "%s/%.31s", p.run, names[0]);
        uint8_t *bytes = read_file(path, &size);
        bytes[size - sizeof(uint64_t)] ^= !cases[i].same_mount;
        write_file(path, bytes, size);
        free(bytes);
        fixture f = in_directories(&p);
        int other = open(p.run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(other > 0);
        if (!cases[i].held)
            f.config.held_directory = other;
        bool trusted = cases[i].held || (cases[i].same_mount && mounts_have_numbers());
        check_open(&f, trusted ? 1 : 2);
        close_store(&f);
        CHECK(close(other) == 0);
        directories_remove(&p);
    }
}

static void test_power(void)
{
    directories p;
    char image[128], path[512], old_path[512];
    static char names[256][32], tables[4][32];
    uint64_t random = 11;
    oort_error error;
    uint64_t cut = 0;
    directories_make(&p);
    fixture f = in_directories(&p);
    f.config.segment_bytes = 1 << 20; /* sealed segments are synced: keep all in an unsealed one */
    memset(model, 0, sizeof model);
    open_store(&f);
    for (int i = 0; i < 400; i++)
        change_one(&f, model, &random);
    CHECK(oort_store_sync(f.store, &error) == OORT_OK);
    (void)snprintf(image, sizeof image, "%s/durable", p.base);
    copy_directory(p.data, image);
    /* Each key changes at most once more, so it has two possible states. */
    memcpy(later, model, sizeof later);
    for (uint32_t i = 0; i < KEYS; i++) {
        later[0][i] = (struct state){.present = i % 3 != 0, .version = 100000 + i, .size = i * 20};
        if (later[0][i].present)
            CHECK(put_state(&f, 0, i, &later[0][i]) == OORT_OK);
        else {
            char name[32];
            CHECK(drop(&f, model_key(name, 0, i)) >= 0);
        }
    }
    size_t count = list_files(p.data, ".log", names, 256);
    for (int round = 0; round < 60; round++) {
        (void)snprintf(image, sizeof image, "%s/image", p.base);
        copy_directory(p.data, image);
        CHECK(list_files(image, ".toc", tables, 4) == 0);
        for (size_t n = 0; n < count; n++) {
            size_t size, old_size = 0;
            uint8_t *old = NULL;
            (void)snprintf(path, sizeof path, "%s/%s", image, names[n]);
            (void)snprintf(old_path, sizeof old_path, "%s/durable/%s", p.base, names[n]);
            uint8_t *bytes = read_file(path, &size);
            if (access(old_path, F_OK) == 0)
                old = read_file(old_path, &old_size);
            for (size_t at = 0; at < size; at += 4096) {
                size_t part = size - at < 4096 ? size - at : 4096;
                /* Any page written since then may be as it was at the sync, or be torn. */
                if (next_random(&random) % 3 != 0)
                    continue;
                size_t from = next_random(&random) % 2 * (next_random(&random) % 4096);
                for (size_t i = at + from; i < at + part; i++)
                    bytes[i] = i < old_size ? old[i] : 0;
            }
            write_file(path, bytes, size);
            free(old);
            free(bytes);
        }
        fixture g = f;
        g.config.directory = image;
        g.config.runtime_directory = NULL;
        open_store(&g);
        oort_session_set_clock(g.session, START_US);
        CHECK(stats_of(&g).recovery == 2);
        check_image(&g);
        cut += stats_of(&g).cut_bytes + stats_of(&g).damaged_bytes;
        close_store(&g);
        remove_directory(image);
    }
    CHECK(cut > 0);
    close_store(&f);
    directories_remove(&p);
}

/* ---- damage -------------------------------------------------------------------------- */

/* The position of a key's last record. */
static size_t find_record(const uint8_t *bytes, size_t size, uint8_t database, const char *key)
{
    size_t found = 0;
    for (size_t at = SEGMENT_HEADER_BYTES; at + sizeof(record_header) <= size;) {
        record_header record;
        memcpy(&record, bytes + at, sizeof record);
        if (record.kind == RECORD_END)
            break;
        if (record.database == database && record.key_size == strlen(key) &&
            memcmp(bytes + at + sizeof record, key, record.key_size) == 0)
            found = at;
        at += record_size(record.key_size, record.value_size);
    }
    return found;
}

static int32_t read_status(fixture *f, oort_key key)
{
    oort_value value;
    int32_t status = look(f, &key, &value);
    oort_unlock(f->session);
    return status;
}

enum { WITH_INDEX = 0, WITHOUT_INDEX = 1, WITHOUT_TOC = 2, BROKEN_TOC = 3, DAMAGE_CASES = 4 };

/* Flips a bit of the newest record of key 5, which has an older record before it. */
static void damage_one(uint32_t how, size_t in_record)
{
    directories p;
    char path[512], name[32];
    static char names[64][32];
    oort_error error;
    size_t size, at = 0;
    uint8_t *bytes = NULL;
    directories_make(&p);
    fixture f = in_directories(&p);
    memset(model, 0, sizeof model);
    open_store(&f);
    for (uint32_t version = 1; version <= 2; version++) {
        for (uint32_t i = 0; i < KEYS; i++) {
            model[0][i] =
                (struct state){.present = true, .version = version * 1000 + i, .size = 300};
            CHECK(put_state(&f, 0, i, &model[0][i]) == OORT_OK);
        }
        close_store(&f); /* seals: each version has its own segment */
        open_store(&f);
    }
    close_store(&f);
    oort_key key = model_key(name, 0, 5);
    size_t count = list_files(p.data, ".log", names, 64);
    CHECK(count >= 2);
    (void)snprintf(path, sizeof path, "%s/%s", p.data, names[count - 1]);
    bytes = read_file(path, &size);
    at = find_record(bytes, size, 0, name);
    CHECK(at != 0);
    bytes[at + in_record] ^= 0x10;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size && close(fd) == 0);
    free(bytes);
    (void)snprintf(path, sizeof path, "%s/%.16s.toc", p.data, names[count - 1]);
    if (how == WITHOUT_INDEX)
        remove_in(p.data, "index");
    if (how == WITHOUT_TOC)
        CHECK(unlink(path) == 0);
    if (how == BROKEN_TOC) {
        bytes = read_file(path, &size);
        bytes[size - 5] ^= 1;
        write_file(path, bytes, size);
        free(bytes);
        remove_in(p.data, "index");
    }
    open_store(&f);
    CHECK(stats_of(&f).recovery == (how == WITH_INDEX ? 0 : 2));
    for (uint32_t i = 0; i < KEYS; i++)
        if (i != 5)
            CHECK(same_state(&f, 0, i, &model[0][i]));
    int32_t status = read_status(&f, key);
    /* With a table of contents the store knows that the key was there.  A scan finds the remaining
     * records and reports a gap. */
    if (how <= WITHOUT_INDEX)
        CHECK(status == OORT_ERR_DAMAGED);
    CHECK(status == OORT_ERR_DAMAGED || how >= WITHOUT_TOC);
    CHECK(stats_of(&f).damaged_records >= 1 && stats_of(&f).damaged_bytes >= 32);
    CHECK(said(&f, "damaged"));
    /* Compaction does not remove the segment. */
    struct state other = {.present = true, .version = 1, .size = 10};
    for (uint32_t i = 10; i < KEYS; i++) {
        CHECK(put_state(&f, 0, i, &other) == OORT_OK);
        model[0][i] = other;
    }
    (void)snprintf(path, sizeof path, "%s/%s", p.data, names[count - 1]);
    CHECK(oort_store_compact(f.store, 1, &error) >= 0);
    CHECK(access(path, F_OK) == 0);
    /* A write replaces the damaged record. */
    model[0][5] = (struct state){.present = true, .version = 77, .size = 400};
    CHECK(put_state(&f, 0, 5, &model[0][5]) == OORT_OK);
    check_model(&f, model);
    close_store(&f);
    remove_in(p.data, "index");
    check_open(&f, 2);
    close_store(&f);
    directories_remove(&p);
}

static void test_damage(void)
{
    /* checksum, kind, flags, database, sizes, stamp, expiry; key; value */
    static const size_t offsets[] = {0, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 33, 50, 200};
    for (uint32_t how = 0; how < DAMAGE_CASES; how++)
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++)
            damage_one(how, offsets[i]);
}

/* The image of a valid record inside a value is not a record, even if the record before it is
 * damaged. */
static void test_no_resurrection(void)
{
    directories p;
    char path[512];
    static char names[64][32];
    size_t size;
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    CHECK(put_text(&f, named("ghost"), "of the past") == OORT_OK);
    close_store(&f);
    CHECK(list_files(p.data, ".log", names, 64) == 1);
    (void)snprintf(path, sizeof path, "%s/%s", p.data, names[0]);
    uint8_t *bytes = read_file(path, &size);
    open_store(&f);
    CHECK(drop(&f, named("ghost")) == OORT_OK);
    /* At every alignment, and again at the position of the original. */
    uint8_t images[4096] = {0};
    for (size_t at = 0; at + 64 <= sizeof images; at += 72)
        memcpy(images + at, bytes + SEGMENT_HEADER_BYTES, 48);
    CHECK(put(&f, named("host"), images, sizeof images, 0) == OORT_OK);
    CHECK(put_text(&f, named("behind"), "it") == OORT_OK);
    free(bytes);
    close_store(&f);
    size_t count = list_files(p.data, ".log", names, 64);
    (void)snprintf(path, sizeof path, "%s/%s", p.data, names[count - 1]);
    bytes = read_file(path, &size);
    size_t at = find_record(bytes, size, 0, "host");
    CHECK(at != 0);
    bytes[at + 8] ^= 1; /* the size of its key, so its end is unknown */
    write_file(path, bytes, size);
    free(bytes);
    remove_in(p.data, ".toc");
    open_store(&f);
    CHECK(stats_of(&f).recovery == 2 && stats_of(&f).damaged_records == 1);
    CHECK(missing(&f, named("ghost")) && missing(&f, named("host")));
    CHECK(holds_text(&f, named("behind"), "it"));
    CHECK(keys_in(&f, 0) == 1);
    close_store(&f);
    directories_remove(&p);
}

/* ---- segments that are gone --------------------------------------------------------- */

static void segment_path(char path[512], const directories *p, size_t position, const char *suffix)
{
    static char names[64][32];
    CHECK(list_files(p->data, ".log", names, 64) > position);
    (void)snprintf(path, 512, "%s/%.16s.%s", p->data, names[position], suffix);
}

/* An expiry record points at a value whose segment is gone.  Another key's value lies at that
 * location later. */
static void test_lost_target(void)
{
    directories p;
    char path[512];
    static uint8_t bytes[1000] = {1};
    oort_error error = {0};
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    CHECK(put_text(&f, named("first"), "has a segment") == OORT_OK);
    fixture g = f;
    g.session = oort_session_open(f.store, &error);
    oort_session_set_clock(g.session, START_US);
    CHECK(g.session != NULL && put(&g, named("one"), bytes, sizeof bytes, 0) == OORT_OK);
    CHECK(expire(&f, named("one"), START_MS + 1000000) == OORT_OK);
    oort_session_close(g.session);
    close_store(&f);
    segment_path(path, &p, 1, "toc");
    CHECK(unlink(path) == 0);
    segment_path(path, &p, 1, "log");
    CHECK(unlink(path) == 0);
    remove_in(p.data, "index"); /* forgets the lost segment: its number is used again */
    open_store(&f);
    CHECK(read_status(&f, named("one")) == OORT_ERR_DAMAGED);
    bytes[0] = 2;
    CHECK(put(&f, named("two"), bytes, sizeof bytes, 0) == OORT_OK);
    CHECK(read_status(&f, named("one")) == OORT_ERR_DAMAGED);
    close_store(&f);
    remove_in(p.data, "index");
    open_store(&f);
    CHECK(read_status(&f, named("one")) == OORT_ERR_DAMAGED);
    CHECK(holds(&f, named("two"), bytes, sizeof bytes) &&
          holds_text(&f, named("first"), "has a segment"));
    close_store(&f);
    directories_remove(&p);
}

static const uint8_t filler[984];

/* Fills a segment with records up to its last byte.  look_only: checks that they are all there. */
static bool fill_segment(fixture *f, char first, bool look_only)
{
    char name[32];
    bool done = true;
    for (int i = 0; i < 60; i++) {
        (void)snprintf(name, sizeof name, "%c-----%02d", first, i);
        done = done && (look_only ? holds(f, named(name), filler, sizeof filler)
                                  : put(f, named(name), filler, sizeof filler, 0) == OORT_OK);
    }
    return done;
}

/* If a segment is gone and its table of contents is left, no new segment gets the table. */
static void test_lost_under_table(void)
{
    directories p;
    char path[512], copied[512];
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    CHECK(fill_segment(&f, 'a', false));
    close_store(&f);
    segment_path(path, &p, 0, "log");
    CHECK(unlink(path) == 0);
    open_store(&f);
    CHECK(said(&f, "missing") && keys_in(&f, 0) == 0);
    CHECK(fill_segment(&f, 'b', false));
    (void)snprintf(copied, sizeof copied, "%s/copied", p.base); /* as after a power failure */
    copy_directory(p.data, copied);
    close_store(&f);
    fixture copy = f;
    copy.config.directory = copied;
    open_store(&copy);
    CHECK(fill_segment(&copy, 'b', true) && keys_in(&copy, 0) == 60);
    close_store(&copy);
    directories_remove(&p);
}

/* A lost segment can be put back, whichever segment it is, even if more was written meanwhile. */
static void test_lost_and_found(size_t position)
{
    directories p;
    char path[512], kept[512], toc[512], kept_toc[512];
    directories_make(&p);
    fixture f = in_directories(&p);
    open_store(&f);
    for (char first = 'a'; first <= 'c'; first++)
        CHECK(fill_segment(&f, first, false));
    close_store(&f);
    segment_path(path, &p, position, "log");
    segment_path(toc, &p, position, "toc");
    (void)snprintf(kept, sizeof kept, "%s/kept.log", p.base);
    (void)snprintf(kept_toc, sizeof kept_toc, "%s/kept.toc", p.base);
    CHECK(rename(path, kept) == 0 && rename(toc, kept_toc) == 0);
    open_store(&f);
    CHECK(said(&f, "missing") && keys_in(&f, 0) == 120);
    CHECK(fill_segment(&f, 'd', false));
    close_store(&f);
    CHECK(access(path, F_OK) != 0 && access(toc, F_OK) != 0);
    CHECK(rename(kept, path) == 0 && rename(kept_toc, toc) == 0);
    open_store(&f);
    CHECK(stats_of(&f).recovery == 2 && keys_in(&f, 0) == 240);
    for (char first = 'a'; first <= 'd'; first++)
        CHECK(fill_segment(&f, first, true));
    close_store(&f);
    directories_remove(&p);
}

int main(void)
{
    test_lost_target();
    test_lost_under_table();
    for (size_t position = 0; position < 3; position++)
        test_lost_and_found(position);
    test_ways();
    test_stale_index();
    test_other_mount();
    test_power();
    test_damage();
    test_no_resurrection();
    return 0;
}
