/*
 * toc.c: makes, writes and maps a table of contents.  See toc.h.
 */
#include "log/toc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log/files.h"

void toc_begin(toc_builder *builder, uint64_t sequence)
{
    *builder = (toc_builder){.header = {.magic = TOC_MAGIC,
                                        .version = LOG_FORMAT_VERSION,
                                        .reader_version = LOG_READER_VERSION,
                                        .sequence = sequence,
                                        .min_stamp = UINT64_MAX,
                                        .min_tombstone_stamp = UINT64_MAX}};
}

void toc_end(toc_builder *builder)
{
    free(builder->entries);
    builder->entries = NULL;
}

int32_t toc_add(toc_builder *builder, uint64_t offset, const record_header *record, uint64_t size)
{
    toc_header *header = &builder->header;
    if (builder->count == builder->capacity) {
        uint64_t capacity = builder->capacity ? builder->capacity * 2 : 4096;
        toc_entry *larger = realloc(builder->entries, capacity * sizeof *larger);
        if (larger == NULL)
            return OORT_ERR_NOMEM;
        builder->entries = larger;
        builder->capacity = capacity;
    }
    toc_entry *entry = &builder->entries[builder->count++];
    uint8_t database = record->database & 15;
    entry->hash = 0;
    entry->expiry_ms = record->expiry_ms;
    if (record->kind == RECORD_FLUSH) {
        entry->expiry_ms = record->database == RECORD_ALL_DATABASES ? RECORD_ALL_DATABASES : 0;
    } else {
        entry->hash = oort_ring_hash(record_key(record), record->key_size, database);
        if (record->expiry_ms != 0 &&
            (header->min_expiry_ms == 0 || record->expiry_ms < header->min_expiry_ms))
            header->min_expiry_ms = record->expiry_ms;
    }
    entry->stamp = record->stamp;
    entry->packed = (uint32_t)(offset / RECORD_ALIGN) << 8 | (uint32_t)database << 4 | record->kind;
    entry->size = (uint32_t)(size / RECORD_ALIGN);
    if (record->stamp > header->max_stamp)
        header->max_stamp = record->stamp;
    if (record->kind == RECORD_SET || record->kind == RECORD_EXPIRY) {
        if (record->stamp < header->min_stamp)
            header->min_stamp = record->stamp;
    } else {
        header->tombstone_bytes += size;
        if (record->stamp < header->min_tombstone_stamp)
            header->min_tombstone_stamp = record->stamp;
    }
    return 0;
}

static bool write_all(int fd, const void *data, uint64_t size)
{
    const uint8_t *from = data;
    while (size != 0) {
        ssize_t count = write(fd, from, size < (1u << 30) ? (size_t)size : (1u << 30));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        from += count;
        size -= (uint64_t)count;
    }
    return true;
}

int32_t toc_write(int directory_fd, toc_builder *builder, oort_error *error)
{
    const uint64_t sequence = builder->header.sequence;
    builder->header.count = builder->count;
    char temporary[SEGMENT_NAME_BYTES], name[SEGMENT_NAME_BYTES];
    const size_t covered = offsetof(toc_header, checksum) + sizeof builder->header.checksum;
    segment_name(temporary, sequence, "toc.new");
    segment_name(name, sequence, "toc");
    uint32_t sum = oort_crc32c(0, (const uint8_t *)&builder->header + covered,
                               sizeof builder->header - covered);
    builder->header.checksum = oort_crc32c(sum, builder->entries,
                                           builder->count * sizeof *builder->entries);
    int fd = openat(directory_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return segment_failure(error, "create its table of contents", sequence);
    bool written = write_all(fd, &builder->header, sizeof builder->header) &&
                   write_all(fd, builder->entries, builder->count * sizeof *builder->entries);
    int32_t result = written ? OORT_OK
                             : segment_failure(error, "write its table of contents", sequence);
    if (written && fdatasync(fd) != 0) {
        result = segment_sync_failure(error, "its table of contents", sequence);
        written = false;
    }
    if (close(fd) != 0 && written)
        result = segment_failure(error, "write its table of contents", sequence);
    if (result == OORT_OK && renameat(directory_fd, temporary, directory_fd, name) != 0)
        result = segment_failure(error, "name its table of contents", sequence);
    if (result != OORT_OK)
        (void)unlinkat(directory_fd, temporary, 0);
    return result;
}

const toc_header *toc_map(int directory_fd, uint64_t sequence, uint64_t capacity, bool verify,
                          uint64_t *mapped_bytes)
{
    char name[SEGMENT_NAME_BYTES];
    struct stat status;
    const size_t covered = offsetof(toc_header, checksum) + sizeof(uint32_t);
    segment_name(name, sequence, "toc");
    int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) != 0 || status.st_size < (off_t)sizeof(toc_header)) {
        (void)close(fd);
        return NULL;
    }
    uint64_t size = (uint64_t)status.st_size;
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (map == MAP_FAILED)
        return NULL;
    const toc_header *toc = map;
    bool fits = toc->magic == TOC_MAGIC && toc->reader_version <= LOG_FORMAT_VERSION &&
                toc->sequence == sequence && toc->tail >= SEGMENT_HEADER_BYTES &&
                toc->tail <= capacity && toc->count == (size - sizeof *toc) / sizeof(toc_entry);
    if (fits && verify)
        fits = toc->checksum == oort_crc32c(0, (const uint8_t *)map + covered, size - covered);
    if (!fits) {
        (void)munmap(map, size);
        return NULL;
    }
    *mapped_bytes = size;
    return toc;
}
