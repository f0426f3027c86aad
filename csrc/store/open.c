/*
 * open.c: opens and closes the persistent store, and decides whether the index can be trusted.
 *
 *   The store was closed cleanly: the mark and the list of segments match.
 *       The index is used unchanged.
 *   The process died but the kernel lives: the index and a file on a tmpfs hold the same nonce, for
 *   this boot and this inode, and the file system was mounted all the time.
 *       The mapping is as the process left it.  Records that the index did not know yet (at most
 *       one change a writer) are replayed.
 *   Anything else:
 *       The index is rebuilt from tables of contents and scans.
 *
 * The file system was mounted all the time if the directory is reached through the same mount (from
 * Linux 6.8 on each mount of a boot has a unique number), or if another process has held the
 * directory open.  A file system that was unmounted, or that cannot sync the index now, may have
 * lost pages.  An index that does not know the stamps of all sealed segments is never trusted.
 */
#include "store/valuestore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U /* Linux 6.8 */
#endif
#define TMPFS_MAGIC_NUMBER 0x01021994
#define SEGMENT_BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)
#define SEGMENT_BYTES_MIN (UINT64_C(64) * 1024)
#define SEGMENTS_ON_DISK 32u /* a smaller disk has smaller segments, so that so many fit */
#define COMPACTION_RATE_DEFAULT (UINT64_C(64) * 1024 * 1024)

_Static_assert(sizeof(struct checkpoint) <= INDEX_OWNER_BYTES, "the checkpoint has its place");

struct nonce_file {
    uint64_t nonce[2];
    char boot_id[40];
    uint64_t device, inode;
    uint64_t mount; /* 0: the kernel does not tell */
};

/* ---- trust ------------------------------------------------------------------------- */

static void read_boot_id(char boot_id[40])
{
    memset(boot_id, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, boot_id, 36) != 36)
        memset(boot_id, 0, 40);
    (void)close(fd);
}

int32_t oort_is_tmpfs(const char *directory)
{
    struct statfs status;
    return statfs(directory, &status) == 0 && status.f_type == TMPFS_MAGIC_NUMBER ? 1 : 0;
}

/* The path of the store's nonce file, which is named after the identity of the data directory. */
static char *nonce_path(struct valuestore *store, const char *runtime_directory)
{
    struct stat status;
    if (runtime_directory == NULL || !oort_is_tmpfs(runtime_directory) ||
        fstat(store->log.directory_fd, &status) != 0)
        return NULL;
    size_t size = strlen(runtime_directory) + 64;
    char *path = malloc(size);
    if (path != NULL)
        (void)snprintf(path, size, "%s/%" PRIx64 "-%" PRIx64 ".nonce", runtime_directory,
                       (uint64_t)status.st_dev, (uint64_t)status.st_ino);
    return path;
}

static bool same_file(const struct checkpoint *checkpoint, int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && checkpoint->device == (uint64_t)status.st_dev &&
           checkpoint->inode == (uint64_t)status.st_ino;
}

/* The number of the mount through which the data directory is reached.  The kernel does not use a
 * number twice in a boot.  0: the kernel does not tell. */
static uint64_t mount_number(const struct valuestore *store)
{
    struct statx status;
    if (statx(store->log.directory_fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &status) != 0 ||
        (status.stx_mask & STATX_MNT_ID_UNIQUE) == 0)
        return 0;
    return status.stx_mnt_id;
}

static bool same_directory(int held, int directory_fd)
{
    struct stat left, right;
    return held > 0 && fstat(held, &left) == 0 && fstat(directory_fd, &right) == 0 &&
           left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

static bool nonce_matches(const struct valuestore *store, const struct checkpoint *checkpoint,
                          int held_directory)
{
    struct nonce_file kept;
    char boot_id[40];
    if (store->log.nonce_path == NULL)
        return false;
    int fd = open(store->log.nonce_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, &kept, sizeof kept);
    (void)close(fd);
    read_boot_id(boot_id);
    return got == (ssize_t)sizeof kept && boot_id[0] != '\0' &&
           memcmp(kept.nonce, checkpoint->nonce, sizeof kept.nonce) == 0 &&
           (kept.nonce[0] | kept.nonce[1]) != 0 &&
           memcmp(kept.boot_id, boot_id, sizeof boot_id) == 0 &&
           memcmp(checkpoint->boot_id, boot_id, sizeof boot_id) == 0 &&
           kept.device == checkpoint->device && kept.inode == checkpoint->inode &&
           ((kept.mount != 0 && kept.mount == mount_number(store)) ||
            same_directory(held_directory, store->log.directory_fd));
}

/* Whether the index knows the latest record of every sealed segment.  The delete bit is ignored,
 * because the tombstone of an expired value has the value's stamp with that bit set. */
static bool knows_tables(const struct valuestore *store)
{
    uint64_t highest = atomic_load(&store->checkpoint->highest_stamp);
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        const struct segment *segment = atomic_load(&store->log.table[number]);
        if (segment != NULL && atomic_load(&segment->max_stamp) >> 1 > highest >> 1)
            return false;
    }
    return true;
}

/* From here on the index on disk must not be trusted without the nonce. */
static int32_t mark_open(struct valuestore *store, oort_error *error)
{
    struct checkpoint *checkpoint = store->checkpoint;
    struct stat status;
    struct nonce_file kept = {.nonce = {0, 0}};
    if (fstat(index_fd(store->index), &status) != 0 ||
        getrandom(checkpoint->nonce, sizeof checkpoint->nonce, 0) !=
            (ssize_t)sizeof checkpoint->nonce)
        return oort_fail(error, OORT_ERR_IO, errno, "%s/index: %s", store->log.directory,
                         strerror(errno));
    checkpoint->magic = CHECKPOINT_MAGIC;
    memcpy(checkpoint->store_id, store->log.store_id, sizeof checkpoint->store_id);
    checkpoint->clean = 0;
    checkpoint->device = (uint64_t)status.st_dev;
    checkpoint->inode = (uint64_t)status.st_ino;
    read_boot_id(checkpoint->boot_id);
    if (msync(checkpoint, 4096, MS_SYNC) != 0 || fsync(index_fd(store->index)) != 0 ||
        fsync(store->log.directory_fd) != 0)
        return oort_fail(error, OORT_ERR_IO, errno, "%s/index: cannot sync it: %s",
                         store->log.directory, strerror(errno));
    if (store->log.nonce_path == NULL)
        return OORT_OK;
    memcpy(kept.nonce, checkpoint->nonce, sizeof kept.nonce);
    memcpy(kept.boot_id, checkpoint->boot_id, sizeof kept.boot_id);
    kept.device = checkpoint->device;
    kept.inode = checkpoint->inode;
    kept.mount = mount_number(store);
    (void)unlink(store->log.nonce_path);
    int fd = open(store->log.nonce_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                  0600);
    bool written = fd >= 0 && write(fd, &kept, sizeof kept) == (ssize_t)sizeof kept;
    if (fd >= 0)
        (void)close(fd);
    if (!written) {
        events_post(&store->events, EVENT_WARNING, OORT_EVENT_OTHER, 0,
                    "cannot write %s (%s): after a crash the index will be rebuilt",
                    store->log.nonce_path, strerror(errno));
        (void)unlink(store->log.nonce_path);
    }
    return OORT_OK;
}

/* ---- open and close ------------------------------------------------------------------------ */

static int32_t take_lock(struct valuestore *store, const char *directory, oort_error *error)
{
    char text[32] = {0};
    /* The directory itself is locked because a file in it can be removed and made again by another
     * process. Some network file systems can lock only files. */
    bool locked = flock(store->log.directory_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    store->lock_fd = openat(store->log.directory_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return oort_fail(error, OORT_ERR_IO, errno, "data directory %s is not writable: %s",
                         directory, strerror(errno));
    if (!locked || flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t got = pread(store->lock_fd, text, sizeof text - 1, 0);
        return oort_fail(error, OORT_ERR_LOCKED, errno,
                         "data directory %s is in use by another oortd (pid %ld); stop it first",
                         directory, got > 0 ? strtol(text, NULL, 10) : 0L);
    }
    int size = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(store->lock_fd, 0) != 0 || pwrite(store->lock_fd, text, (size_t)size, 0) != size)
        return oort_fail(error, errno == ENOSPC ? OORT_ERR_FULL : OORT_ERR_IO, errno,
                         "data directory %s is not writable: %s", directory, strerror(errno));
    return OORT_OK;
}

static int32_t fresh_index(struct valuestore *store, const char *path, oort_error *error)
{
    if (store->index != NULL)
        (void)index_close(store->index, false, NULL);
    store->index = index_create(path, 0, error);
    if (store->index == NULL)
        return error->code;
    store->checkpoint = index_owner_area(store->index);
    store->log.checkpoint = store->checkpoint;
    return OORT_OK;
}

/* Whether segments that the index points into are missing or shorter than the index knows, because
 * files were removed or cut.  tell: posts an event for each missing segment. */
static bool segments_lost(struct valuestore *store, bool tell)
{
    bool lost = false;
    for (uint32_t number = 0; number < SEGMENT_NUMBERS; number++) {
        struct segment *segment = atomic_load(&store->log.table[number]);
        int64_t live = atomic_load(&store->checkpoint->live_bytes[number]);
        if (segment != NULL ? segment->lost_bytes == 0 : live <= 0)
            continue;
        lost = true;
        if (segment == NULL)
            vlog_skip_number(&store->log, number);
        if (tell && segment == NULL)
            events_post(&store->events, EVENT_ERROR, OORT_EVENT_DAMAGE, 0,
                        "%s: segment number %" PRIu32 ", with about %" PRId64
                        " bytes of live records, is missing or unreadable: restore it from a copy",
                        store->log.directory, number, live);
    }
    return lost;
}

static int32_t recover(struct valuestore *store, const char *path, const oort_store_config *config,
                       oort_error *error)
{
    oort_error reason = {0};
    bool clean = false, alive = false;
    store->index = index_open(path, 0, &reason);
    if (store->index == NULL && reason.code == OORT_ERR_FORMAT) {
        *error = reason;
        return reason.code;
    }
    bool known = false;
    if (store->index != NULL) {
        store->checkpoint = index_owner_area(store->index);
        /* A copied index may belong to another store, so the store id then comes from the
         * segments. */
        known = store->checkpoint->magic == CHECKPOINT_MAGIC &&
                same_file(store->checkpoint, index_fd(store->index));
        store->log.checkpoint = store->checkpoint;
        if (known)
            memcpy(store->log.store_id, store->checkpoint->store_id, sizeof store->log.store_id);
    }
    int32_t result = vlog_load(&store->log, !known, error);
    if (result != OORT_OK)
        return result;
    if (known) {
        clean = store->checkpoint->clean == 1 &&
                store->checkpoint->manifest == vlog_manifest(&store->log);
        /* A file system that has failed, or that failed to write pages of the index, reports the
         * error again. */
        alive = !clean && store->checkpoint->clean == 0 &&
                nonce_matches(store, store->checkpoint, config->held_directory) &&
                fsync(index_fd(store->index)) == 0;
        if (!knows_tables(store))
            clean = alive = false;
        /* After a kill the live bytes are inexact: enough for doubt about a segment, not for a
         * report. */
        bool closed = store->checkpoint->clean == 1;
        if (!clean && segments_lost(store, closed))
            alive = false;
    }
    bool new_store = store->log.segment_count == 0 && !known;
    static const uint8_t no_id[16] = {0};
    if (!clean && !alive) {
        if (!new_store)
            events_post(&store->events, EVENT_NOTICE, OORT_EVENT_RECOVERY, 0,
                        "%s was not closed cleanly: rebuilding the index from %" PRIu32 " segments",
                        store->log.directory, store->log.segment_count);
        result = fresh_index(store, path, error);
        if (result != OORT_OK)
            return result;
        if (memcmp(store->log.store_id, no_id, sizeof no_id) == 0 &&
            getrandom(store->log.store_id, sizeof store->log.store_id, 0) !=
                (ssize_t)sizeof store->log.store_id)
            return oort_fail(error, OORT_ERR_IO, errno, "cannot get random numbers: %s",
                             strerror(errno));
    }
    metric_add(&store->base.metrics.recovery, clean || new_store ? 0 : alive ? 1 : 2);
    if (!clean)
        result = valuestore_recover(store, alive, config->progress, error);
    return result;
}

static void free_store(struct valuestore *store)
{
    if (store->stripes != NULL)
        for (uint32_t i = 0; i < STRIPES; i++)
            (void)pthread_mutex_destroy(&store->stripes[i].mutex);
    free(store->stripes);
    free(store->log.nonce_path);
    if (store->lock_fd >= 0)
        (void)close(store->lock_fd);
    (void)pthread_mutex_destroy(&store->sync_round_mutex);
    (void)pthread_mutex_destroy(&store->sync_mutex);
    (void)pthread_mutex_destroy(&store->thread_mutex);
    (void)pthread_mutex_destroy(&store->compaction_mutex);
    (void)pthread_cond_destroy(&store->sync_wake);
    (void)pthread_cond_destroy(&store->sync_finished);
    (void)pthread_cond_destroy(&store->thread_wake);
    events_close(&store->events);
    free(store);
}

static bool init_threads(struct valuestore *store)
{
    pthread_condattr_t monotonic;
    if (posix_memalign((void **)&store->stripes, 64, STRIPES * sizeof *store->stripes) != 0) {
        store->stripes = NULL;
        return false;
    }
    for (uint32_t i = 0; i < STRIPES; i++)
        (void)pthread_mutex_init(&store->stripes[i].mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&store->sync_round_mutex, NULL);
    (void)pthread_mutex_init(&store->sync_mutex, NULL);
    (void)pthread_mutex_init(&store->thread_mutex, NULL);
    (void)pthread_mutex_init(&store->compaction_mutex, NULL);
    (void)pthread_cond_init(&store->sync_wake, &monotonic);
    (void)pthread_cond_init(&store->sync_finished, NULL);
    (void)pthread_cond_init(&store->thread_wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    return true;
}

static void segment_made(void *context)
{
    valuestore_check_disk(context);
}

static void set_defaults(struct valuestore *store, const oort_store_config *config)
{
    struct statfs status;
    uint64_t segment_bytes = store->log.segment_bytes;
    store->value_cap = config->value_cap != 0 && config->value_cap < OORT_VALUE_CAP
                           ? config->value_cap
                           : OORT_VALUE_CAP;
    store->compaction_rate = config->compaction_bytes_per_second != 0
                                 ? config->compaction_bytes_per_second
                                 : COMPACTION_RATE_DEFAULT;
    store->compaction_dead_percent = config->compaction_dead_percent != 0
                                         ? config->compaction_dead_percent
                                         : 50;
    store->tombstone_age_seconds = config->tombstone_age_seconds;
    store->background = config->background != 0;
    store->free_bytes_low = config->free_bytes_low;
    if (store->free_bytes_low == 0 && fstatfs(store->log.directory_fd, &status) == 0) {
        /* Leaves room to seal, to compact and to delete in: four segments, or a hundredth of the
         * disk. */
        uint64_t hundredth = (uint64_t)status.f_blocks * (uint64_t)status.f_bsize / 100;
        uint64_t most = UINT64_C(2) << 30;
        store->free_bytes_low = 4 * segment_bytes > hundredth ? 4 * segment_bytes : hundredth;
        if (store->free_bytes_low > most)
            store->free_bytes_low = most;
    }
}

/* The watermark is four segments.  On a small disk that must not be the whole disk. */
static uint64_t default_segment_bytes(const char *directory)
{
    struct statfs status;
    if (directory == NULL || statfs(directory, &status) != 0)
        return SEGMENT_BYTES_DEFAULT; /* opening the directory will report the cause */
    uint64_t part = (uint64_t)status.f_blocks * (uint64_t)status.f_bsize / SEGMENTS_ON_DISK;
    if (part == 0 || part >= SEGMENT_BYTES_DEFAULT)
        return SEGMENT_BYTES_DEFAULT; /* 0: the file system does not tell its size */
    return part < SEGMENT_BYTES_MIN ? SEGMENT_BYTES_MIN : part - part % SEGMENT_BYTES_MIN;
}

oort_store *oort_valuestore_open(const oort_store_config *config, oort_error *error)
{
    uint64_t segment_bytes = config->segment_bytes != 0 ? config->segment_bytes
                                                        : default_segment_bytes(config->directory);
    if (config->directory == NULL || segment_bytes < SEGMENT_BYTES_MIN ||
        segment_bytes > SEGMENT_BYTES_MAX || segment_bytes % 4096 != 0) {
        (void)oort_fail(error, OORT_ERR_ARGUMENT, 0,
                        "segment size must be a multiple of 4096 from 65536 to %" PRIu64 " bytes",
                        SEGMENT_BYTES_MAX);
        return NULL;
    }
    struct valuestore *store = calloc(1, sizeof *store);
    if (store == NULL || !init_threads(store)) {
        free(store);
        (void)oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory for the store");
        return NULL;
    }
    store->base.ops = &valuestore_ops;
    store->lock_fd = -1;
    if (events_open(&store->events, error) != OORT_OK) {
        store->events.fd = -1;
        free_store(store);
        return NULL;
    }
    if (vlog_open(&store->log, config->directory, segment_bytes, &store->events, error) !=
        OORT_OK) {
        free_store(store);
        return NULL;
    }
    store->log.sync_time = &store->base.histograms.fsync;
    size_t size = strlen(config->directory) + 16;
    char *path = malloc(size);
    int32_t result = path != NULL ? take_lock(store, config->directory, error)
                                  : oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory");
    if (result == OORT_OK) {
        (void)snprintf(path, size, "%s/index", config->directory);
        set_defaults(store, config);
        store->log.low_bytes = store->free_bytes_low;
        store->log.segment_made = segment_made;
        store->log.context = store;
        (void)valuestore_set_fsync(&store->base, config->fsync);
        store->log.nonce_path = nonce_path(store, config->runtime_directory);
        valuestore_check_disk(store);
        result = recover(store, path, config, error);
    }
    if (result == OORT_OK)
        result = mark_open(store, error);
    if (result == OORT_OK)
        result = valuestore_start(store, error);
    free(path);
    if (result == OORT_OK)
        return &store->base;
    if (store->index != NULL)
        (void)index_close(store->index, false, NULL);
    vlog_close(&store->log);
    free_store(store);
    return NULL;
}

int32_t valuestore_close(oort_store *base, oort_error *error)
{
    struct valuestore *store = valuestore_of(base);
    oort_error ignored;
    if (error == NULL)
        error = &ignored;
    valuestore_stop(store);
    int32_t result = vlog_seal_pending(&store->log, error);
    if (result >= 0)
        result = vlog_sync(&store->log, error);
    bool clean = result == OORT_OK && atomic_load(&store->log.failed) == 0;
    /* The mark must not reach the device before the index does. */
    if (clean && fsync(index_fd(store->index)) != 0) {
        result = oort_fail(error, OORT_ERR_IO, errno, "%s/index: cannot sync it: %s",
                           store->log.directory, strerror(errno));
        clean = false;
    }
    if (clean) {
        store->checkpoint->manifest = vlog_manifest(&store->log);
        store->checkpoint->clean = 1;
    }
    int32_t closed = index_close(store->index, clean, error);
    if (result == OORT_OK)
        result = closed;
    if (store->log.nonce_path != NULL && clean && closed == OORT_OK)
        (void)unlink(store->log.nonce_path);
    vlog_close(&store->log);
    free_store(store);
    return result;
}
