/*
 * segment.c: the life of a segment's file, the scan of its records, and the test whether its bytes
 * are in memory.  See segment.h.
 */
#include "log/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "log/files.h"
#include "log/toc.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define RESIDENT_TICKS 4u /* an extent seen in memory is believed to stay for so long */

static struct segment *segment_new(uint64_t sequence, uint64_t capacity)
{
    struct segment *new = calloc(1, sizeof *new);
    if (new == NULL)
        return NULL;
    new->extent_count = (uint32_t)((capacity + SEGMENT_EXTENT_BYTES - 1) / SEGMENT_EXTENT_BYTES);
    new->extents = calloc(new->extent_count, sizeof *new->extents);
    new->verdicts = calloc(new->extent_count, sizeof *new->verdicts);
    if (new->extents == NULL || new->verdicts == NULL) {
        free((void *)new->extents);
        free((void *)new->verdicts);
        free(new);
        return NULL;
    }
    new->sequence = sequence;
    new->capacity = capacity;
    new->fd = -1;
    new->map = MAP_FAILED;
    atomic_store(&new->min_stamp, UINT64_MAX);
    atomic_store(&new->min_expiry_ms, INT64_MAX);
    atomic_store(&new->min_tombstone_stamp, UINT64_MAX);
    return new;
}

void segment_free(struct segment *segment)
{
    if (segment == NULL)
        return;
    OORT_ASSERT(atomic_load(&segment->pins) == 0, "a segment that is freed has no pins");
    if (segment->map != MAP_FAILED)
        (void)munmap(segment->map, segment->capacity);
    if (segment->fd >= 0)
        (void)close(segment->fd);
    free((void *)segment->extents);
    free((void *)segment->verdicts);
    free(segment);
}

int32_t segment_unlink(int directory_fd, uint64_t sequence)
{
    char name[SEGMENT_NAME_BYTES];
    /* The table goes first.  A segment without a table is scanned; a table without a segment is
     * reported as a lost segment. */
    segment_name(name, sequence, "toc");
    if (unlinkat(directory_fd, name, 0) != 0 && errno != ENOENT)
        return OORT_ERR_IO;
    segment_name(name, sequence, "log");
    if (unlinkat(directory_fd, name, 0) != 0 && errno != ENOENT)
        return OORT_ERR_IO;
    return OORT_OK;
}

/* Values are read at random positions, and readahead around each would evict pages in use.  An
 * active segment keeps readahead, because MADV_RANDOM makes the first touch of a page three times
 * slower. */
static void segment_read_at_random(struct segment *segment)
{
    (void)madvise(segment->map, segment->capacity, MADV_RANDOM);
}

static bool map_segment(struct segment *segment)
{
    segment->map = mmap(NULL, segment->capacity, PROT_READ | PROT_WRITE, MAP_SHARED, segment->fd,
                        0);
    if (segment->map == MAP_FAILED)
        return false;
    (void)madvise(segment->map, segment->capacity, MADV_DONTDUMP);
    return true;
}

static bool write_zeros(int fd, uint64_t size)
{
    /* Writes one page at a time.  A longer write makes one large folio of page cache, and every
     * later sync of one of its pages writes the whole folio (measured: 1,200 us a sync instead of
     * 165). */
    const size_t step = 4096;
    uint8_t *zeros = calloc(1, step);
    bool written = zeros != NULL;
    for (uint64_t done = 0; written && done < size;) {
        size_t part = size - done < step ? (size_t)(size - done) : step;
        ssize_t count = pwrite(fd, zeros, part, (off_t)done);
        if (count < 0 && errno == EINTR)
            continue;
        written = count > 0;
        done += written ? (uint64_t)count : 0;
    }
    free(zeros);
    return written && fdatasync(fd) == 0;
}

struct segment *segment_create(int directory_fd, uint64_t sequence, uint32_t number,
                               uint64_t capacity, const uint8_t store_id[16], bool zeroed,
                               oort_error *error)
{
    char name[SEGMENT_NAME_BYTES];
    segment_header header = {.magic = SEGMENT_MAGIC,
                             .version = LOG_FORMAT_VERSION,
                             .reader_version = LOG_READER_VERSION,
                             .number = number,
                             .sequence = sequence,
                             .capacity = capacity};
    struct segment *new = segment_new(sequence, capacity);
    if (new == NULL) {
        (void)oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory for a segment");
        return NULL;
    }
    memcpy(header.store_id, store_id, sizeof header.store_id);
    if (getrandom(&header.seed, sizeof header.seed, 0) != (ssize_t)sizeof header.seed) {
        (void)segment_failure(error, "draw a checksum seed", sequence);
        segment_free(new);
        return NULL;
    }
    header.checksum = segment_header_checksum(&header);
    header.synced = SEGMENT_HEADER_BYTES;
    header.synced_checksum = oort_crc32c(0, &header.synced, sizeof header.synced);
    new->number = number;
    new->seed = header.seed;
    segment_name(name, sequence, "log");
    new->fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (new->fd < 0) {
        (void)segment_failure(error, "create it", sequence);
        segment_free(new);
        return NULL;
    }
    int allocated = posix_fallocate(new->fd, 0, (off_t)capacity);
    if (allocated != 0) {
        errno = allocated;
        (void)segment_failure(error, "preallocate it", sequence);
    } else if (zeroed && !write_zeros(new->fd, capacity)) {
        (void)segment_failure(error, "write zeros to it", sequence);
    } else if (!map_segment(new)) {
        (void)segment_failure(error, "map it", sequence);
    } else {
        memcpy(new->map, &header, sizeof header);
        atomic_store(&new->tail, SEGMENT_HEADER_BYTES);
        atomic_store(&new->synced, SEGMENT_HEADER_BYTES);
        new->header_synced = SEGMENT_HEADER_BYTES;
        atomic_store(&new->state, SEGMENT_ACTIVE);
        return new;
    }
    segment_free(new);
    (void)segment_unlink(directory_fd, sequence);
    return NULL;
}

struct segment *segment_load(int directory_fd, uint64_t sequence, const uint8_t store_id[16],
                             bool any_store, oort_error *error)
{
    char name[SEGMENT_NAME_BYTES];
    struct stat status;
    segment_header header;
    segment_name(name, sequence, "log");
    int fd = openat(directory_fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        (void)segment_failure(error, "open it", sequence);
        if (fd >= 0)
            (void)close(fd);
        return NULL;
    }
    ssize_t got = pread(fd, &header, sizeof header, 0);
    if (got < 0) {
        (void)segment_failure(error, "read its header", sequence);
        (void)close(fd);
        return NULL;
    }
    const char *wrong = NULL;
    if (got != (ssize_t)sizeof header || header.magic != SEGMENT_MAGIC)
        wrong = "is not a segment";
    else if (header.reader_version > LOG_FORMAT_VERSION)
        wrong = "was written by a newer oortd; run that version";
    else if (header.checksum != segment_header_checksum(&header) || header.sequence != sequence ||
             header.number >= SEGMENT_NUMBERS || status.st_size < (off_t)SEGMENT_HEADER_BYTES)
        wrong = "has a damaged header";
    else if (!any_store && memcmp(header.store_id, store_id, sizeof header.store_id) != 0)
        wrong = "belongs to another store";
    if (wrong != NULL) {
        bool newer = got == (ssize_t)sizeof header && header.magic == SEGMENT_MAGIC &&
                     header.reader_version > LOG_FORMAT_VERSION;
        (void)oort_fail(error, newer ? OORT_ERR_FORMAT : OORT_ERR_DAMAGED, 0,
                        "segment %016" PRIx64 ".log %s", sequence, wrong);
        (void)close(fd);
        return NULL;
    }
    struct segment *loaded = segment_new(sequence, (uint64_t)status.st_size);
    if (loaded == NULL) {
        (void)oort_fail(error, OORT_ERR_NOMEM, ENOMEM, "no memory for a segment");
        (void)close(fd);
        return NULL;
    }
    loaded->fd = fd;
    loaded->number = header.number;
    loaded->seed = header.seed;
    if (!map_segment(loaded)) {
        (void)segment_failure(error, "map it", sequence);
        segment_free(loaded);
        return NULL;
    }
    uint64_t synced = SEGMENT_HEADER_BYTES;
    if (header.synced_checksum == oort_crc32c(0, &header.synced, sizeof header.synced) &&
        header.synced >= SEGMENT_HEADER_BYTES)
        synced = header.synced;
    if (synced > loaded->capacity) {
        loaded->lost_bytes = synced - loaded->capacity;
        synced = loaded->capacity;
    }
    atomic_store(&loaded->synced, synced);
    loaded->header_synced = synced;
    atomic_store(&loaded->state, SEGMENT_SEALING);

    uint64_t mapped = 0;
    const toc_header *toc = toc_map(directory_fd, sequence, loaded->capacity, false, &mapped);
    /* A sealed file ends at its tail. */
    if (toc != NULL && toc->tail == loaded->capacity) {
        atomic_store(&loaded->tail, toc->tail);
        atomic_store(&loaded->synced, toc->tail);
        atomic_store(&loaded->min_stamp, toc->min_stamp);
        atomic_store(&loaded->min_expiry_ms, toc->min_expiry_ms ? toc->min_expiry_ms : INT64_MAX);
        atomic_store(&loaded->tombstone_bytes, toc->tombstone_bytes);
        atomic_store(&loaded->min_tombstone_stamp, toc->min_tombstone_stamp);
        atomic_store(&loaded->max_stamp, toc->max_stamp);
        loaded->quarantined = toc->damaged_bytes != 0;
        atomic_store(&loaded->state, SEGMENT_SEALED);
        segment_read_at_random(loaded);
        (void)close(loaded->fd);
        loaded->fd = -1;
    }
    if (toc != NULL)
        (void)munmap((void *)(uintptr_t)toc, mapped);
    return loaded;
}

int32_t segment_reopen(int directory_fd, struct segment *segment, oort_error *error)
{
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, segment->sequence, "log");
    segment->fd = openat(directory_fd, name, O_RDWR | O_CLOEXEC);
    return segment->fd < 0 ? segment_failure(error, "open it", segment->sequence) : OORT_OK;
}

/* Records in the file's header that all bytes below `synced` are on the device. */
static void note_synced(struct segment *segment, uint64_t synced)
{
    segment_header *header = (segment_header *)(void *)segment->map;
    header->synced = synced;
    header->synced_checksum = oort_crc32c(0, &synced, sizeof synced);
    segment->header_synced = synced;
}

int32_t segment_sync(struct segment *segment, oort_error *error)
{
    uint64_t tail = atomic_load_explicit(&segment->tail, memory_order_acquire);
    int64_t now_ms = clock_monotonic_ms();
    uint64_t synced = atomic_load(&segment->synced);
    OORT_ASSERT(synced <= tail && tail <= segment->capacity, "synced <= tail <= capacity");
    if (tail == synced)
        return OORT_OK;
    if (synced != segment->header_synced && now_ms - segment->header_synced_ms >= 1000) {
        note_synced(segment, synced);
        segment->header_synced_ms = now_ms;
    }
    if (fdatasync(segment->fd) != 0)
        return segment_sync_failure(error, "it", segment->sequence);
    atomic_store(&segment->synced, tail);
    return OORT_OK;
}

/* The next offset with a valid record, or limit. */
static uint64_t next_record(const struct segment *segment, uint64_t offset, uint64_t limit)
{
    /* A location cannot express larger offsets, so no record begins there. */
    for (; offset + sizeof(record_header) <= limit && offset < SEGMENT_BYTES_MAX;
         offset += RECORD_ALIGN) {
        uint8_t kind = segment->map[offset + offsetof(record_header, kind)];
        if (kind == RECORD_END || kind >= RECORD_KINDS)
            continue;
        if (record_check(segment->map, offset, limit, segment->seed) != 0)
            return offset;
    }
    return limit;
}

static bool all_zero(const uint8_t *data, uint64_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* Gives the records of a complete batch, which lie between begin and end, to the visitor. */
static int32_t visit_batch(struct segment *segment, uint64_t begin, uint64_t end,
                           segment_visitor visitor, void *context, segment_damage *damage)
{
    for (uint64_t offset = begin; offset < end;) {
        const record_header *record = segment_record(segment, offset);
        uint64_t size = record_size(record->key_size, record->value_size);
        int32_t answer = visitor(context, segment, offset, record, size);
        if (answer != 0)
            return answer;
        damage->records++;
        offset += size;
    }
    return 0;
}

int32_t segment_scan(struct segment *segment, uint64_t from, uint64_t limit, bool trusted,
                     segment_visitor visitor, void *context, segment_damage *damage)
{
    uint64_t synced = atomic_load(&segment->synced);
    uint64_t offset = from;
    uint64_t batch_begin = 0, batch_stamp = 0, batch_count = 0;
    memset(damage, 0, sizeof *damage);
    for (;;) {
        uint64_t size = offset < SEGMENT_BYTES_MAX
                            ? record_check(segment->map, offset, limit, segment->seed)
                            : 0;
        if (size == 0) {
            bool unused = trusted && limit - offset >= sizeof(record_header) &&
                          all_zero(segment->map + offset, sizeof(record_header));
            uint64_t next = unused ? limit : next_record(segment, offset, limit);
            if (next == limit) {
                damage->tail = offset;
                if (offset < synced) {
                    damage->damaged_bytes += synced - offset;
                    damage->first_damage = damage->damaged_runs++ == 0 ? offset
                                                                       : damage->first_damage;
                } else if (!all_zero(segment->map + offset, limit - offset)) {
                    damage->cut_bytes = limit - offset;
                    while (damage->cut_bytes >= 8 &&
                           all_zero(segment->map + offset + damage->cut_bytes - 8, 8))
                        damage->cut_bytes -= 8;
                }
                damage->dropped += batch_count;
                return 0;
            }
            damage->damaged_bytes += next - offset;
            damage->first_damage = damage->damaged_runs++ == 0 ? offset : damage->first_damage;
            damage->dropped += batch_count;
            batch_count = 0;
            offset = next;
            continue;
        }
        const record_header *record = segment_record(segment, offset);
        if (batch_count != 0 && record->stamp != batch_stamp) {
            damage->dropped += batch_count;
            batch_count = 0;
        }
        if (record->flags & RECORD_IN_BATCH) {
            if (batch_count++ == 0) {
                batch_begin = offset;
                batch_stamp = record->stamp;
            }
        } else if (record->kind == RECORD_BATCH_END) {
            record_batch_end end = {0, 0};
            if (record->value_size == sizeof end)
                memcpy(&end, record_value(record), sizeof end);
            if (batch_count != 0 && end.count == batch_count) {
                int32_t answer = visit_batch(segment, batch_begin, offset, visitor, context,
                                             damage);
                if (answer != 0)
                    return answer;
            } else {
                damage->dropped += batch_count;
            }
            batch_count = 0;
        } else {
            damage->dropped += batch_count;
            batch_count = 0;
            int32_t answer = visitor(context, segment, offset, record, size);
            if (answer != 0)
                return answer;
            damage->records++;
        }
        offset += size;
    }
}

int32_t segment_cut(struct segment *segment, oort_error *error)
{
    uint64_t tail = atomic_load(&segment->tail);
    OORT_ASSERT(atomic_load(&segment->state) != SEGMENT_SEALED, "a sealed segment is never cut");
    OORT_ASSERT(atomic_load(&segment->synced) <= tail && tail <= segment->capacity,
                "synced <= tail <= capacity");
    /* A scan must end at the tail, so bytes beyond a recovered tail are removed. */
    if (ftruncate(segment->fd, (off_t)tail) != 0)
        return segment_failure(error, "truncate it to its tail", segment->sequence);
    if (fsync(segment->fd) != 0)
        return segment_sync_failure(error, "it", segment->sequence);
    atomic_store(&segment->synced, tail);
    /* If the table of contents is lost, a scan must distinguish damage from an unsynced tail. */
    note_synced(segment, tail);
    return OORT_OK;
}

static int32_t add_to_toc(void *context, struct segment *segment, uint64_t offset,
                          const record_header *record, uint64_t size)
{
    (void)segment;
    return toc_add(context, offset, record, size);
}

int32_t segment_seal(int directory_fd, struct segment *segment, oort_error *error)
{
    toc_builder builder;
    segment_damage damage;
    uint64_t tail = atomic_load(&segment->tail);
    toc_begin(&builder, segment->sequence);
    int32_t result = segment_scan(segment, SEGMENT_HEADER_BYTES, tail, false, add_to_toc, &builder,
                                  &damage);
    if (result != 0) {
        toc_end(&builder);
        return oort_fail(error, OORT_ERR_NOMEM, ENOMEM,
                         "segment %016" PRIx64 ".log: no memory for its table of contents",
                         segment->sequence);
    }
    builder.header.tail = tail;
    builder.header.damaged_bytes = damage.damaged_bytes;
    result = toc_write(directory_fd, &builder, error);
    toc_end(&builder);
    if (result != OORT_OK)
        return result;
    if (fsync(directory_fd) != 0)
        return segment_sync_failure(error, "its directory", segment->sequence);
    atomic_store(&segment->min_stamp, builder.header.min_stamp);
    atomic_store(&segment->max_stamp, builder.header.max_stamp);
    atomic_store(&segment->tombstone_bytes, builder.header.tombstone_bytes);
    atomic_store(&segment->min_tombstone_stamp, builder.header.min_tombstone_stamp);
    atomic_store(&segment->min_expiry_ms,
                 builder.header.min_expiry_ms ? builder.header.min_expiry_ms : INT64_MAX);
    segment->quarantined = damage.damaged_bytes != 0;
    (void)mprotect(segment->map, segment->capacity, PROT_READ);
    segment_read_at_random(segment);
    atomic_store(&segment->state, SEGMENT_SEALED);
    return OORT_OK;
}

/* ---- residency ------------------------------------------------------------- */

static bool pages_resident(const struct segment *segment, uint64_t from, uint64_t to)
{
    unsigned char pages[SEGMENT_EXTENT_BYTES / 4096 + 2];
    const uint64_t page = 4096;
    from &= ~(page - 1);
    while (from < to) {
        uint64_t part = to - from < SEGMENT_EXTENT_BYTES ? to - from : SEGMENT_EXTENT_BYTES;
        if (mincore(segment->map + from, part, pages) != 0)
            return false;
        for (uint64_t i = 0; i < (part + page - 1) / page; i++)
            if ((pages[i] & 1) == 0)
                return false;
        from += part;
    }
    return true;
}

bool segment_resident(struct segment *segment, uint64_t offset, uint64_t size, uint32_t tick)
{
    if (tick == 0)
        return true;
    uint64_t last = (offset + size - 1) / SEGMENT_EXTENT_BYTES;
    for (uint64_t extent = offset / SEGMENT_EXTENT_BYTES; extent <= last; extent++) {
        uint32_t seen = atomic_load_explicit(&segment->extents[extent], memory_order_relaxed);
        if (seen != 0 && tick - seen < RESIDENT_TICKS)
            continue;
        uint64_t from = extent * SEGMENT_EXTENT_BYTES;
        uint64_t to = from + SEGMENT_EXTENT_BYTES;
        uint64_t tail = atomic_load_explicit(&segment->tail, memory_order_relaxed);
        if (pages_resident(segment, from, to < tail ? to : tail)) {
            atomic_store_explicit(&segment->extents[extent], tick, memory_order_relaxed);
            continue;
        }
        /* Part of the extent is only on disk.  The requested bytes may lie in the other part. */
        uint64_t begin = offset > from ? offset : from;
        uint64_t end = offset + size < to ? offset + size : to;
        if (!pages_resident(segment, begin, end))
            return false;
    }
    return true;
}

int32_t segment_fetch(struct segment *segment, uint64_t offset, uint64_t size)
{
    const uint64_t page = 4096;
    uint64_t tail = atomic_load(&segment->tail);
    uint64_t from = offset & ~(page - 1);
    uint64_t to = offset + size < tail ? offset + size : tail;
    if (from >= to)
        return OORT_OK;
    if (madvise(segment->map + from, to - from, MADV_POPULATE_READ) == 0)
        return OORT_OK;
    if (errno != EINVAL)
        return OORT_ERR_IO;
    /* A kernel before 5.14: ask for readahead and wait until the bytes are in memory. */
    (void)madvise(segment->map + from, to - from, MADV_WILLNEED);
    for (int attempt = 0; attempt < 1000; attempt++) {
        if (pages_resident(segment, from, to))
            return OORT_OK;
        (void)usleep(1000);
    }
    return OORT_ERR_IO;
}
