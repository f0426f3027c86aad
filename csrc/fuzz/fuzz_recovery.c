/*
 * fuzz_recovery.c: libFuzzer target for opening a damaged data directory.
 *
 * A small directory is prepared once: three segments and an index, closed cleanly.  The first byte
 * of the input chooses how the whole directory is changed (enum mode).  The rest are writes over
 * its files, five bytes each: the file, the position (two bytes), the change (two bytes).  The
 * store must then open or report the cause, and everything in it must be readable, writable and
 * compactable.
 */
#include "index/index.h"
#include "log/toc.h"
#include "log/vlog.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum mode {
    WITHOUT_INDEX = 1,
    RIGHT_CHECKSUMS = 2, /* of headers and tables of contents, so that their checks pass */
    TRUSTED_INDEX = 4,   /* the index claims to be the original file */
    WITHOUT_TOC = 8      /* as if the segments were not sealed */
};

#define FILES_MOST 8
#define INDEX_OWNER_START 4096u
#define INDEX_HEAD 8192u /* writes beyond it go to the directory and data of the index */
#define INDEX_DATA (INDEX_OWNER_START + INDEX_OWNER_BYTES)
#define KEYS 40u
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    char base[64];
    struct {
        char name[32];
        uint8_t *bytes;
        size_t size;
    } files[FILES_MOST];
    size_t count;
} prepared;

static const oort_store_config settings = {.segment_bytes = 1 << 16, .free_bytes_low = 1};

static void clear_directory(void)
{
    DIR *listing = opendir(prepared.base);
    MUST(listing != NULL);
    for (struct dirent *file; (file = readdir(listing)) != NULL;)
        if (file->d_name[0] != '.')
            MUST(unlinkat(dirfd(listing), file->d_name, 0) == 0);
    MUST(closedir(listing) == 0);
}

static void remove_base(void)
{
    clear_directory();
    (void)rmdir(prepared.base);
}

static void load_files(void)
{
    DIR *listing = opendir(prepared.base);
    MUST(listing != NULL);
    for (struct dirent *file; (file = readdir(listing)) != NULL;) {
        struct stat status;
        if (file->d_name[0] == '.' || strcmp(file->d_name, "lock") == 0)
            continue;
        MUST(prepared.count < FILES_MOST);
        int fd = openat(dirfd(listing), file->d_name, O_RDONLY | O_CLOEXEC);
        MUST(fd >= 0 && fstat(fd, &status) == 0);
        (void)snprintf(prepared.files[prepared.count].name, 32, "%.31s", file->d_name);
        prepared.files[prepared.count].size = (size_t)status.st_size;
        prepared.files[prepared.count].bytes = malloc((size_t)status.st_size + 1);
        MUST(prepared.files[prepared.count].bytes != NULL);
        MUST(read(fd, prepared.files[prepared.count].bytes, (size_t)status.st_size) ==
             status.st_size);
        MUST(close(fd) == 0);
        prepared.count++;
    }
    MUST(closedir(listing) == 0);
}

static oort_key key_number(char *name, uint32_t number)
{
    oort_key key;
    int size = snprintf(name, 32, "{x}key:%u", number);
    oort_key_init(&key, (const uint8_t *)name, (size_t)size, (uint8_t)(number % 3));
    return key;
}

/* Writes records of every kind. */
static void write_some(oort_session *session, uint32_t round)
{
    static uint8_t bytes[1000];
    char name[32], other[32];
    memset(bytes, 'v', sizeof bytes);
    for (uint32_t i = 0; i < KEYS; i++) {
        oort_key key = key_number(name, i);
        oort_bytes part = {bytes, i % 4 == 0 ? 600 : 20 + round};
        (void)oort_lock(session, &key, 1);
        (void)oort_write(session, &key, &part, 1, i % 5 == 0 ? INT64_C(1) << 45 : 0);
        if (i % 4 == 0)
            (void)oort_set_expiry(session, &key, INT64_C(1) << 44);
        if (i % 7 == round)
            (void)oort_remove(session, &key);
        oort_unlock(session);
    }
    oort_key pair[2] = {key_number(name, 3), key_number(other, 6)};
    oort_bytes part = {bytes, 50};
    (void)oort_lock(session, pair, 2);
    if (oort_batch_begin(session, 2, 200) == OORT_OK) {
        if (oort_write(session, &pair[0], &part, 1, 0) == OORT_OK &&
            oort_write(session, &pair[1], &part, 1, 0) == OORT_OK)
            (void)oort_batch_commit(session);
        else
            oort_batch_abort(session);
    }
    oort_unlock(session);
    if (round == 1)
        (void)oort_store_flush(session, 2);
}

static void prepare(void)
{
    oort_store_config config = settings;
    oort_error error;
    (void)snprintf(prepared.base, sizeof prepared.base, "/dev/shm/fuzz_recovery.XXXXXX");
    MUST(mkdtemp(prepared.base) != NULL);
    MUST(atexit(remove_base) == 0);
    config.directory = prepared.base;
    for (uint32_t round = 0; round < 3; round++) {
        oort_store *store = oort_valuestore_open(&config, &error);
        MUST(store != NULL);
        oort_session *session = oort_session_open(store, &error);
        MUST(session != NULL);
        oort_session_set_clock(session, INT64_C(1700000000000000));
        write_some(session, round);
        oort_session_close(session);
        MUST(oort_store_close(store, &error) == OORT_OK);
    }
    load_files();
    MUST(prepared.count >= 6);
}

static void set_checksums(const char *name, uint8_t *bytes, size_t size)
{
    const char *end = strrchr(name, '.');
    if (end != NULL && strcmp(end, ".log") == 0 && size >= sizeof(segment_header)) {
        segment_header header;
        memcpy(&header, bytes, sizeof header);
        header.checksum = segment_header_checksum(&header);
        header.synced_checksum = oort_crc32c(0, &header.synced, sizeof header.synced);
        memcpy(bytes, &header, sizeof header);
    } else if (end != NULL && strcmp(end, ".toc") == 0 && size >= sizeof(toc_header)) {
        size_t covered = offsetof(toc_header, checksum) + sizeof(uint32_t);
        uint32_t sum = oort_crc32c(0, bytes + covered, size - covered);
        memcpy(bytes + offsetof(toc_header, checksum), &sum, sizeof sum);
    }
}

static void write_files(const uint8_t *data, size_t size, uint8_t mode)
{
    for (size_t i = 0; i < prepared.count; i++) {
        char path[128];
        size_t length = prepared.files[i].size;
        bool index = strcmp(prepared.files[i].name, "index") == 0;
        if (((mode & WITHOUT_INDEX) != 0 && index) ||
            ((mode & WITHOUT_TOC) != 0 && strstr(prepared.files[i].name, ".toc") != NULL))
            continue;
        uint8_t *bytes = malloc(length + 1);
        MUST(bytes != NULL);
        memcpy(bytes, prepared.files[i].bytes, length);
        for (size_t at = 0; at + 5 <= size; at += 5) {
            size_t offset = (size_t)data[at + 1] << 8 | data[at + 2];
            if (data[at] % prepared.count != i)
                continue;
            if (index && offset >= INDEX_HEAD)
                offset = INDEX_DATA + (offset - INDEX_HEAD) * 8;
            if (data[at] >= 0xf0)
                length = offset < length ? offset : length; /* truncated */
            else if (offset < length)
                bytes[offset] ^= data[at + 3];
            if (data[at] < 0xf0 && offset + 1 < length)
                bytes[offset + 1] ^= data[at + 4];
        }
        if ((mode & RIGHT_CHECKSUMS) != 0)
            set_checksums(prepared.files[i].name, bytes, length);
        (void)snprintf(path, sizeof path, "%s/%s", prepared.base, prepared.files[i].name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        struct stat status;
        if (index && (mode & TRUSTED_INDEX) != 0 && length >= INDEX_DATA && fd >= 0 &&
            fstat(fd, &status) == 0) {
            uint64_t identity[2] = {status.st_dev, status.st_ino};
            memcpy(bytes + INDEX_OWNER_START + offsetof(struct checkpoint, device), identity,
                   sizeof identity);
        }
        MUST(fd >= 0 && write(fd, bytes, length) == (ssize_t)length && close(fd) == 0);
        free(bytes);
    }
}

static void read_all(oort_store *store, oort_session *session)
{
    static uint8_t buffer[1 << 20];
    oort_event event;
    uint8_t sum = 0;
    char name[32];
    for (uint8_t database = 0; database < 3; database++) {
        /* All keys are in one slot.  The other slots would only take time. */
        uint64_t slot = oort_key_slot((const uint8_t *)"{x}", 3);
        oort_scan scan = {
            .position = slot << 24, .want = 20, .buffer = buffer, .capacity = sizeof buffer};
        while (oort_store_scan(session, database, &scan) == OORT_OK && scan.position >> 24 == slot)
            ;
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        oort_key key = key_number(name, i);
        oort_value value;
        (void)oort_lock(session, &key, 1);
        if (oort_read(session, &key, &value) == OORT_OK) {
            for (uint64_t at = 0; at < value.size; at++)
                sum = (uint8_t)(sum ^ value.data[at]);
            buffer[0] = sum;
        }
        oort_unlock(session);
    }
    while (oort_store_next_event(store, &event) == 1)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    oort_store_config config = settings;
    oort_error error = {0};
    if (prepared.count == 0)
        prepare();
    if (size == 0)
        return 0;
    clear_directory();
    write_files(data + 1, size - 1, data[0]);
    config.directory = prepared.base;
    oort_store *store = oort_valuestore_open(&config, &error);
    if (store == NULL) {
        MUST(error.code < 0 && error.text[0] != '\0');
        return 0;
    }
    oort_session *session = oort_session_open(store, &error);
    MUST(session != NULL);
    oort_session_set_clock(session, INT64_C(1700000001000000));
    read_all(store, session);
    write_some(session, 4);
    (void)oort_store_compact(store, 1, &error);
    read_all(store, session);
    oort_session_close(session);
    (void)oort_store_close(store, &error);
    return 0;
}
