/*
 * record.h: the on-disk format of a segment: its header and its records.
 *
 * All fields are little-endian and aligned to 8 bytes; the library does not compile for other
 * machines.  A segment file is a segment_header, followed by records without gaps.  Zeros at the
 * position of a record end the records.  A sealed segment has a table of contents beside it
 * (toc.h).
 *
 * A record's checksum is CRC32C over everything from the field after the checksum to the end of the
 * value, without the padding.  It starts from the segment's random seed and the record's offset.  A
 * scan that steps over damage therefore never takes other bytes for a record: neither bytes left
 * from another segment, nor the image of a record inside a value.
 */
#ifndef OORT_RECORD_H
#define OORT_RECORD_H

#include <string.h>

#include "oort.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the on-disk formats are little-endian; this machine is not"
#endif

#define RECORD_ALIGN 8u

/* The version that is written now, and the smallest version of a reader that understands it. */
#define SEGMENT_MAGIC UINT64_C(0x3147455354524f4f) /* "OORTSEG1" */
#define LOG_FORMAT_VERSION 1u
#define LOG_READER_VERSION 1u

enum record_kind {
    RECORD_END = 0,       /* the rest of the segment is unused */
    RECORD_SET = 1,       /* key and value */
    RECORD_DELETE = 2,    /* tombstone: a key without a value */
    RECORD_EXPIRY = 3,    /* a new expiry for a value in another record: record_target */
    RECORD_FLUSH = 4,     /* records of the database with smaller stamps are dead */
    RECORD_BATCH_END = 5, /* ends a batch: record_batch_end */
    RECORD_KINDS = 6      /* this kind and larger ones belong to newer versions */
};

enum record_flag {
    RECORD_IN_BATCH = 1 /* counts only if the end record of its batch follows in the segment */
};

#define RECORD_ALL_DATABASES 255u

typedef struct record_header {
    uint32_t checksum;
    uint8_t kind;
    uint8_t flags;
    uint8_t database;
    uint8_t reserved; /* 0 */
    uint32_t key_size;
    uint32_t value_size;
    uint64_t stamp; /* microseconds << 8 | counter << 1 | delete bit; the same in a whole batch */
    int64_t expiry_ms; /* 0: never */
} record_header;

/* The value of RECORD_EXPIRY.  The sequence tells whether the number still belongs to the same
 * segment. */
typedef struct record_target {
    uint64_t location;
    uint64_t sequence;
} record_target;

/* The value of RECORD_BATCH_END. */
typedef struct record_batch_end {
    uint32_t count;
    uint32_t reserved;
} record_batch_end;

#define SEGMENT_HEADER_BYTES 4096u

typedef struct segment_header {
    uint64_t magic;
    uint16_t version;
    uint16_t reader_version; /* the smallest version that can read the file */
    uint32_t number;         /* the upper 16 bits of the segment's locations */
    uint64_t sequence;       /* order of creation, never used twice */
    uint64_t capacity;       /* preallocated bytes, header included */
    uint8_t store_id[16];
    uint32_t seed;     /* the checksum of every record starts from it */
    uint32_t checksum; /* CRC32C of the fields above */
    /* The checksum above does not cover these fields.  They are rewritten at most once a second. */
    uint64_t synced;          /* all bytes below this offset are on the device */
    uint32_t synced_checksum; /* CRC32C of synced */
    uint32_t reserved;
} segment_header;

_Static_assert(sizeof(record_header) == 32, "record header");
_Static_assert(sizeof(segment_header) == 72, "segment header");

/* A dead entry of the index has the delete bit set in its stamp.  Its record is a tombstone, or a
 * value that has expired. */
static inline bool stamp_is_dead(uint64_t stamp)
{
    return (stamp & 1) != 0;
}

static inline uint64_t record_size(uint64_t key_size, uint64_t value_size)
{
    return (sizeof(record_header) + key_size + value_size + RECORD_ALIGN - 1) &
           ~(uint64_t)(RECORD_ALIGN - 1);
}

static inline const uint8_t *record_key(const record_header *record)
{
    return (const uint8_t *)(record + 1);
}

static inline const uint8_t *record_value(const record_header *record)
{
    return (const uint8_t *)(record + 1) + record->key_size;
}

/* The target of an expiry record.  The caller checks whether the target exists.  Returns false if
 * the record is not a valid expiry record. */
static inline bool record_points(const record_header *record, record_target *target)
{
    if (record->kind != RECORD_EXPIRY || record->value_size != sizeof *target)
        return false;
    memcpy(target, record_value(record), sizeof *target);
    return target->location >> 40 == 0;
}

/* The checksum that a record at this offset must have. */
uint32_t record_checksum(uint32_t seed, uint64_t offset, const record_header *record);

/* The total size of the record at offset if it is complete and valid, else 0.  At most `limit`
 * bytes of the segment may be read. */
uint64_t record_check(const uint8_t *segment, uint64_t offset, uint64_t limit, uint32_t seed);

/* As record_check, but without the checksum: the size if the header is possible at this offset,
 * else 0. */
uint64_t record_extent(const uint8_t *segment, uint64_t offset, uint64_t limit);

uint32_t segment_header_checksum(const segment_header *header);

#endif
