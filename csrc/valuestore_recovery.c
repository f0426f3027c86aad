/*
 * valuestore_recovery.c: opening and closing the persistent store.
 *
 *   closed in order            the index is taken as it is: its mark, and the list of segments, match
 *   process died, kernel lives a nonce matches between the index and a file on tmpfs, in the same
 *                              boot, for the same inode: the mapping is as the process left it;
 *                              what the index did not yet know (at most one change a writer) is replayed
 *   anything else              the index is made anew from tables of contents and scans
 *
 * Whatever was active is sealed; writers begin new segments.
 */
#include "valuestore.h"

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

#define TMPFS_MAGIC_NUMBER 0x01021994
#define SEGMENT_BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)
#define SEGMENT_BYTES_MIN (UINT64_C(64) * 1024)
#define COMPACTION_RATE_DEFAULT (UINT64_C(64) * 1024 * 1024)

_Static_assert(sizeof(struct checkpoint) <= INDEX_OWNER_BYTES, "the checkpoint has its place");

struct nonce_file {
    uint64_t nonce[2];
    char boot_id[40];
    uint64_t device, inode;
};

struct recovery {
    struct valuestore *store;
    struct value_session *session;
    uint64_t flush_stamp[OORT_DATABASES];
    uint64_t highest_stamp;
    uint64_t records;
    int32_t result;
    oort_error *error;
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

static bool on_tmpfs(const char *directory)
{
    struct statfs status;
    return statfs(directory, &status) == 0 && status.f_type == TMPFS_MAGIC_NUMBER;
}

/* The name of this store's nonce file: by the data directory's identity. */
static char *nonce_path(struct valuestore *store, const char *runtime_directory)
{
    struct stat status;
    if (runtime_directory == NULL || !on_tmpfs(runtime_directory) ||
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

static bool nonce_matches(const struct valuestore *store, const struct checkpoint *checkpoint)
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
           kept.device == checkpoint->device && kept.inode == checkpoint->inode;
}

/* From here on the index on disk is not to be trusted, but for the nonce. */
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
    (void)unlink(store->log.nonce_path);
    int fd = open(store->log.nonce_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool written = fd >= 0 && write(fd, &kept, sizeof kept) == (ssize_t)sizeof kept;
    if (fd >= 0)
        (void)close(fd);
    if (!written) {
        events_post(&store->events, EVENT_WARNING,
                    "cannot write %s (%s): after a crash the index will be rebuilt",
                    store->log.nonce_path, strerror(errno));
        (void)unlink(store->log.nonce_path);
    }
    return OORT_OK;
}

/* ---- applying records ----------------------------------------------------------------- */

/* A record's bytes count as live unless it is a tombstone; a plain value's size is known without
 * touching it. */
static void add_live(struct recovery *work, uint64_t location, uint32_t kind, uint64_t size)
{
    if (kind == RECORD_SET)
        (void)atomic_fetch_add(
            &work->store->checkpoint->live_bytes[location_slot(location)], (int64_t)size);
    else if (kind != RECORD_DELETE)
        valuestore_account(work->store, location, 1);
}

static void note_target(struct recovery *work, uint64_t location)
{
    struct segment *segment = vlog_segment(&work->store->log, location);
    uint64_t target = 0;
    const record_header *record = segment_record(segment, location_offset(location));
    if (valuestore_target(work->store, record, &target) != NULL)
        (void)atomic_fetch_or(&work->store->checkpoint->segment_flags[location_slot(target)],
                              SEGMENT_HAS_TARGETS);
}

/* Does the record at location win over the entry found?  Later stamp; at equal stamps a full
 * value over an expiry that compaction has merged into it; and the same record again. */
static bool wins(const struct found *at, uint32_t kind, uint64_t stamp, uint64_t location, bool replay)
{
    if (at->damaged || stamp > index_stamp(at->entry))
        return true;
    if (stamp < index_stamp(at->entry))
        return false;
    if (replay && index_location(at->entry) != location)
        return true; /* the entry was half written when the process died */
    return kind == RECORD_SET && at->record != NULL && at->record->kind == RECORD_EXPIRY;
}

static int32_t apply(struct recovery *work, uint64_t hash, uint8_t database, uint32_t kind,
                     uint64_t stamp, uint64_t location, uint64_t size, bool replay)
{
    struct valuestore *store = work->store;
    index_cursor cursor;
    index_entry entry;
    work->records++;
    if (stamp > work->highest_stamp)
        work->highest_stamp = stamp;
    index_seek(store->index, hash, database, &cursor);
    if (index_next(store->index, &cursor, &entry)) {
        struct segment *segment = vlog_segment(&store->log, location);
        const record_header *record = segment_record(segment, location_offset(location));
        oort_key key = {.data = record_key(record),
                        .hash = hash,
                        .size = record->key_size,
                        .database = database};
        struct found at;
        if (valuestore_find(work->session, &key, FIND_BLOCKING, &at) == OORT_OK) {
            if (!wins(&at, kind, stamp, location, replay))
                return OORT_OK;
            if (replay && kind == RECORD_DELETE) {
                valuestore_account(store, index_location(at.entry), -1);
                index_erase(store->index, &at.cursor);
                return OORT_OK;
            }
            if (!at.damaged && at.record->kind != RECORD_DELETE)
                valuestore_account(store, index_location(at.entry), -1);
            add_live(work, location, kind, size);
            if (kind == RECORD_EXPIRY)
                note_target(work, location);
            index_replace(store->index, &at.cursor, location, stamp);
            return OORT_OK;
        }
    }
    if (replay && kind == RECORD_DELETE)
        return OORT_OK;
    int32_t result = index_insert(store->index, hash, database, location, stamp);
    if (result != OORT_OK)
        return oort_fail(work->error, result, 0,
                         "%s/index cannot grow while it is rebuilt; free disk space",
                         store->log.directory);
    add_live(work, location, kind, size);
    if (kind == RECORD_EXPIRY)
        note_target(work, location);
    return OORT_OK;
}

static void apply_flush(struct recovery *work, bool all, uint8_t database, uint64_t stamp)
{
    work->records++;
    if (stamp > work->highest_stamp)
        work->highest_stamp = stamp;
    for (int i = 0; i < OORT_DATABASES; i++)
        if ((all || i == database) && stamp > work->flush_stamp[i])
            work->flush_stamp[i] = stamp;
}

static int32_t apply_record(struct recovery *work, struct segment *segment, uint64_t offset,
                            const record_header *record, uint64_t size, bool replay)
{
    uint8_t database = record->database & 15;
    uint64_t location = segment_location(segment->slot, offset);
    if (record->kind == RECORD_FLUSH) {
        apply_flush(work, record->database == RECORD_ALL_DATABASES, database, record->stamp);
        return OORT_OK;
    }
    uint64_t hash = oort_ring_hash(record_key(record), record->key_size, database);
    if (record->stamp < atomic_load(&segment->min_stamp))
        atomic_store(&segment->min_stamp, record->stamp);
    return apply(work, hash, database, record->kind, record->stamp, location, size,
                 replay);
}

static int32_t visit_rebuild(void *context, struct segment *segment, uint64_t offset,
                             const record_header *record, uint64_t size)
{
    return apply_record(context, segment, offset, record, size, false);
}

static int32_t visit_replay(void *context, struct segment *segment, uint64_t offset,
                            const record_header *record, uint64_t size)
{
    return apply_record(context, segment, offset, record, size, true);
}

static int32_t visit_nothing(void *context, struct segment *segment, uint64_t offset,
                             const record_header *record, uint64_t size)
{
    (void)context, (void)segment, (void)offset, (void)record, (void)size;
    return 0;
}

/* ---- replay and rebuild ------------------------------------------------------------------ */

static void report_scan(struct valuestore *store, const struct segment *segment,
                        const segment_damage *damage)
{
    if (damage->damaged_runs != 0) {
        (void)atomic_fetch_add(&store->damaged_records, damage->damaged_runs);
        (void)atomic_fetch_add(&store->damaged_bytes, damage->damaged_bytes);
        events_post(&store->events, EVENT_ERROR,
                    "segment %016" PRIx64 ".log: %" PRIu64 " damaged bytes in %" PRIu64
                    " places, the first at offset %" PRIu64
                    "; the records there are lost here: restore them from a copy",
                    segment->sequence, damage->damaged_bytes, damage->damaged_runs,
                    damage->first_damage);
    }
    if (damage->cut_bytes != 0) {
        store->cut_bytes += damage->cut_bytes;
        events_post(&store->events, EVENT_NOTICE,
                    "segment %016" PRIx64 ".log: cut %" PRIu64
                    " bytes of an unfinished write at offset %" PRIu64 " (never synced)",
                    segment->sequence, damage->cut_bytes, damage->tail);
    }
    if (damage->dropped != 0)
        events_post(&store->events, EVENT_NOTICE,
                    "segment %016" PRIx64 ".log: dropped %" PRIu64
                    " records of a batch that was never finished",
                    segment->sequence, damage->dropped);
}

/* An unsealed segment's tail is known: hand it on to be sealed, or remove it when it holds nothing. */
static int32_t settle(struct valuestore *store, struct segment *segment, uint64_t tail,
                      oort_error *error)
{
    if (tail > SEGMENT_HEADER_BYTES)
        return vlog_adopt(&store->log, segment, tail, error);
    int32_t result = vlog_unlink(&store->log, segment, error);
    if (result == OORT_OK)
        vlog_release(&store->log, segment);
    return result;
}

static uint64_t replay_from(const struct checkpoint *checkpoint, const struct segment *segment)
{
    for (uint32_t i = 0; i < LOG_WRITERS; i++)
        if (atomic_load(&checkpoint->marks[i].sequence) == segment->sequence) {
            uint64_t applied = atomic_load(&checkpoint->marks[i].applied);
            return applied > SEGMENT_HEADER_BYTES ? applied : SEGMENT_HEADER_BYTES;
        }
    return SEGMENT_HEADER_BYTES;
}

/* Until its tail is known, all of an unsealed segment may be looked at: records in others point into it. */
static void open_tails(struct valuestore *store)
{
    for (uint32_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
        struct segment *segment = atomic_load(&store->log.table[slot]);
        if (segment != NULL && atomic_load(&segment->state) != SEGMENT_SEALED)
            atomic_store(&segment->tail, segment->capacity);
    }
}

static int32_t replay(struct recovery *work)
{
    struct valuestore *store = work->store;
    for (uint32_t slot = 0; slot < SEGMENT_SLOTS; slot++) {
        struct segment *segment = atomic_load(&store->log.table[slot]);
        if (segment == NULL || atomic_load(&segment->state) == SEGMENT_SEALED)
            continue;
        segment_damage damage;
        bool applied =
            (atomic_load(&store->checkpoint->segment_flags[slot]) & SEGMENT_APPLIED) != 0;
        uint64_t from = applied ? SEGMENT_HEADER_BYTES : replay_from(store->checkpoint, segment);
        int32_t result =
            segment_scan(segment, from, segment->capacity, true,
                         applied ? visit_nothing : visit_replay, work, &damage);
        if (result != 0)
            return result;
        damage.damaged_runs = 0;
        report_scan(store, segment, &damage);
        result = settle(store, segment, damage.tail, work->error);
        if (result != OORT_OK)
            return result;
    }
    return OORT_OK;
}

static int32_t rebuild_from_toc(struct recovery *work, struct segment *segment,
                                const toc_header *toc)
{
    for (uint64_t i = 0; i < toc->count; i++) {
        const toc_entry *place = &toc_entries(toc)[i];
        uint32_t kind = place->place & 15;
        uint8_t database = (uint8_t)(place->place >> 4 & 15);
        uint64_t offset = (uint64_t)(place->place >> 8) * RECORD_ALIGN;
        uint64_t size = (uint64_t)place->size * RECORD_ALIGN;
        uint64_t location = segment_location(segment->slot, offset);
        if (offset + size > toc->tail)
            return oort_fail(work->error, OORT_ERR_DAMAGED, 0,
                             "segment %016" PRIx64 ".toc points beyond its segment",
                             segment->sequence);
        if (kind == RECORD_FLUSH) {
            apply_flush(work, place->expiry_ms == RECORD_ALL_DATABASES, database, place->stamp);
            continue;
        }
        int32_t result =
            apply(work, place->hash, database, kind, place->stamp, location, size, false);
        if (result != OORT_OK)
            return result;
    }
    return OORT_OK;
}

static int32_t rebuild(struct recovery *work)
{
    struct valuestore *store = work->store;
    int32_t result = OORT_OK;
    for (uint32_t slot = 0; slot < SEGMENT_SLOTS && result == OORT_OK; slot++) {
        struct segment *segment = atomic_load(&store->log.table[slot]);
        if (segment == NULL)
            continue;
        bool sealed = atomic_load(&segment->state) == SEGMENT_SEALED;
        uint64_t mapped = 0;
        const toc_header *toc =
            sealed ? segment_toc(store->log.directory_fd, segment, true, &mapped) : NULL;
        (void)madvise(segment->map, segment->capacity, MADV_SEQUENTIAL);
        if (toc != NULL) {
            result = rebuild_from_toc(work, segment, toc);
            (void)munmap((void *)(uintptr_t)toc, mapped);
        } else {
            segment_damage damage;
            result = segment_scan(segment, SEGMENT_HEADER_BYTES, segment->capacity, false,
                                  visit_rebuild, work, &damage);
            if (result == 0)
                report_scan(store, segment, &damage);
            if (result == 0 && sealed)
                result = segment_reopen(store->log.directory_fd, segment, work->error);
            if (result == 0)
                result = settle(store, segment, damage.tail, work->error);
        }
        if (atomic_load(&store->log.table[slot]) == segment)
            (void)madvise(segment->map, segment->capacity, MADV_RANDOM);
    }
    return result;
}

static int settle_entry(void *context, uint32_t slot, index_entry entry)
{
    struct recovery *work = context;
    struct checkpoint *checkpoint = work->store->checkpoint;
    uint8_t database = index_database(entry);
    (void)slot;
    if ((index_stamp(entry) & 1) != 0)
        return INDEX_ERASE;
    if (index_stamp(entry) < atomic_load(&checkpoint->flush_stamp[database])) {
        valuestore_account(work->store, index_location(entry), -1);
        return INDEX_ERASE;
    }
    (void)atomic_fetch_add_explicit(&checkpoint->keys[database], 1, memory_order_relaxed);
    return INDEX_KEEP;
}

/* Tombstones and flushes have done their work; the counters are counted anew. */
static void settle_index(struct recovery *work)
{
    struct checkpoint *checkpoint = work->store->checkpoint;
    for (int i = 0; i < OORT_DATABASES; i++) {
        if (work->flush_stamp[i] > atomic_load(&checkpoint->flush_stamp[i]))
            atomic_store(&checkpoint->flush_stamp[i], work->flush_stamp[i]);
        atomic_store(&checkpoint->keys[i], 0);
    }
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++)
        index_visit_slot(work->store->index, slot, settle_entry, work);
    if (work->highest_stamp > atomic_load(&checkpoint->highest_stamp))
        atomic_store(&checkpoint->highest_stamp, work->highest_stamp);
    for (uint32_t i = 0; i < LOG_WRITERS; i++) {
        atomic_store(&checkpoint->marks[i].applied, 0);
        atomic_store(&checkpoint->marks[i].sequence, 0);
    }
}

/* ---- open and close ------------------------------------------------------------------------ */

static int32_t take_lock(struct valuestore *store, const char *directory, oort_error *error)
{
    char text[32] = {0};
    store->lock_fd = openat(store->log.directory_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return oort_fail(error, OORT_ERR_IO, errno,
                         "data directory %s is not writable: %s", directory, strerror(errno));
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0) {
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

static int32_t recover(struct valuestore *store, const char *path, oort_error *error)
{
    struct recovery work = {.store = store, .error = error};
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
        known = store->checkpoint->magic == CHECKPOINT_MAGIC;
        store->log.checkpoint = store->checkpoint;
        if (known)
            memcpy(store->log.store_id, store->checkpoint->store_id, sizeof store->log.store_id);
    }
    int32_t result = vlog_load(&store->log, !known, error);
    if (result != OORT_OK)
        return result;
    if (known && same_file(store->checkpoint, index_fd(store->index))) {
        clean = store->checkpoint->clean == 1 &&
                store->checkpoint->manifest == vlog_manifest(&store->log);
        alive = !clean && store->checkpoint->clean == 0 && nonce_matches(store, store->checkpoint);
    }
    bool new_store = store->log.segment_count == 0 && !known;
    static const uint8_t no_id[16] = {0};
    if (!clean && !alive) {
        if (!new_store && (known || reason.code != 0))
            events_post(&store->events, EVENT_NOTICE,
                        "%s was not closed in order: rebuilding the index from %" PRIu32
                        " segments", store->log.directory, store->log.segment_count);
        result = fresh_index(store, path, error);
        if (result != OORT_OK)
            return result;
        if (memcmp(store->log.store_id, no_id, sizeof no_id) == 0 &&
            getrandom(store->log.store_id, sizeof store->log.store_id, 0) !=
                (ssize_t)sizeof store->log.store_id)
            return oort_fail(error, OORT_ERR_IO, errno, "no random numbers: %s", strerror(errno));
    }
    store->recovery = clean || new_store ? 0 : alive ? 1 : 2;
    oort_session *session = NULL;
    if (!clean) {
        session = valuestore_session(store, error);
        if (session == NULL)
            return error->code;
        work.session = (struct value_session *)(void *)session;
        open_tails(store);
        work.highest_stamp = atomic_load(&store->checkpoint->highest_stamp);
        result = alive ? replay(&work) : rebuild(&work);
        if (result == OORT_OK)
            settle_index(&work);
        oort_session_close(session);
        store->recovered_records = work.records;
    }
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
    (void)pthread_mutex_init(&store->sync_mutex, NULL);
    (void)pthread_mutex_init(&store->thread_mutex, NULL);
    (void)pthread_mutex_init(&store->compaction_mutex, NULL);
    (void)pthread_cond_init(&store->sync_wake, &monotonic);
    (void)pthread_cond_init(&store->sync_finished, NULL);
    (void)pthread_cond_init(&store->thread_wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    return true;
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
    store->compaction_dead_percent =
        config->compaction_dead_percent != 0 ? config->compaction_dead_percent : 50;
    store->tombstone_age_seconds = config->tombstone_age_seconds;
    store->background = config->background != 0;
    store->free_bytes_low = config->free_bytes_low;
    if (store->free_bytes_low == 0 && fstatfs(store->log.directory_fd, &status) == 0) {
        /* Room to seal, to compact and to delete in: some segments, or a hundredth of the disk. */
        uint64_t hundredth = (uint64_t)status.f_blocks * (uint64_t)status.f_bsize / 100;
        uint64_t most = UINT64_C(2) << 30;
        store->free_bytes_low = 4 * segment_bytes > hundredth ? 4 * segment_bytes : hundredth;
        if (store->free_bytes_low > most)
            store->free_bytes_low = most;
    }
}

oort_store *oort_valuestore_open(const oort_store_config *config, oort_error *error)
{
    uint64_t segment_bytes =
        config->segment_bytes != 0 ? config->segment_bytes : SEGMENT_BYTES_DEFAULT;
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
    size_t size = strlen(config->directory) + 16;
    char *path = malloc(size);
    int32_t result = path != NULL ? take_lock(store, config->directory, error)
                                  : oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory");
    if (result == OORT_OK) {
        (void)snprintf(path, size, "%s/index", config->directory);
        set_defaults(store, config);
        (void)valuestore_set_fsync(&store->base, config->fsync);
        store->log.nonce_path = nonce_path(store, config->runtime_directory);
        valuestore_check_disk(store);
        result = recover(store, path, error);
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
    struct valuestore *store = (struct valuestore *)(void *)base;
    oort_error ignored;
    if (error == NULL)
        error = &ignored;
    valuestore_stop(store);
    int32_t result = vlog_seal_pending(&store->log, error);
    if (result >= 0)
        result = vlog_sync(&store->log, error);
    bool clean = result == OORT_OK && atomic_load(&store->log.failed) == 0;
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
