/*
 * record.c: checks records and segment headers.  Every length is compared with the number of
 * readable bytes before it is used.
 */
#include "log/record.h"

uint32_t record_checksum(uint32_t seed, uint64_t offset, const record_header *record)
{
    uint32_t start = seed ^ (uint32_t)(offset / RECORD_ALIGN);
    size_t size = sizeof *record - sizeof record->checksum + (size_t)record->key_size +
                  (size_t)record->value_size;
    return oort_crc32c(start, (const uint8_t *)record + sizeof record->checksum, size);
}

uint64_t record_extent(const uint8_t *segment, uint64_t offset, uint64_t limit)
{
    const record_header *record = (const record_header *)(const void *)(segment + offset);
    if (offset % RECORD_ALIGN != 0 || offset > limit || limit - offset < sizeof *record)
        return 0;
    if (record->kind == RECORD_END || record->kind >= RECORD_KINDS || record->reserved != 0)
        return 0;
    if (record->key_size > OORT_KEY_CAP || record->value_size > OORT_VALUE_CAP)
        return 0;
    uint64_t size = record_size(record->key_size, record->value_size);
    return size <= limit - offset ? size : 0;
}

uint64_t record_check(const uint8_t *segment, uint64_t offset, uint64_t limit, uint32_t seed)
{
    uint64_t size = record_extent(segment, offset, limit);
    if (size == 0)
        return 0;
    const record_header *record = (const record_header *)(const void *)(segment + offset);
    return record->checksum == record_checksum(seed, offset, record) ? size : 0;
}

uint32_t segment_header_checksum(const segment_header *header)
{
    return oort_crc32c(0, header, offsetof(segment_header, checksum));
}
