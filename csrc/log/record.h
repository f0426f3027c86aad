/*
 * record.h: the on-disk formats of a segment: its header and its records.
 *
 * Everything is little-endian and 8-byte aligned (the library refuses to build
 * elsewhere).  A segment file is a segment_header followed by records without
 * gaps; zero bytes where a record would begin end it.  A sealed segment has a table of
 * contents beside it (toc.h).
 *
 * A record's checksum is CRC32C over everything after the checksum field, up to
 * the end of the value (padding is not covered).  It starts from the segment's random seed and the record's
 * offset, so that bytes left from another segment, or a record's image inside
 * somebody's value, never pass for a record when damage is stepped over.
 */
#ifndef OORT_RECORD_H
#define OORT_RECORD_H

#include <string.h>

#include "oort.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the on-disk formats are little-endian; this machine is not"
#endif

#define RECORD_ALIGN 8u

/* What is written now, and the oldest version of the reader that understands it. */
#define SEGMENT_MAGIC UINT64_C(0x3147455354524f4f) /* "OORTSEG1" */
#define LOG_FORMAT_VERSION 1u
#define LOG_READER_VERSION 1u

enum record_kind {
    RECORD_END = 0,       /* no record: the rest of the segment is unused */
    RECORD_SET = 1,       /* key and value */
    RECORD_DELETE = 2,    /* tombstone: a key, no value */
    RECORD_EXPIRY = 3,    /* a new expiry for a value that lies elsewhere: record_target */
    RECORD_FLUSH = 4,     /* every record of a database with a smaller stamp is dead */
    RECORD_BATCH_END = 5, /* closes a batch: record_batch_end */
    RECORD_KINDS = 6      /* kinds from here on are a newer version's */
};

enum record_flag {
    RECORD_IN_BATCH = 1 /* counts only if its batch's end record follows in the segment */
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
    uint64_t stamp; /* microseconds << 8 | counter << 1 | delete bit; a batch's records share one */
    int64_t expiry_ms; /* 0: never */
} record_header;

/* Value of RECORD_EXPIRY. The sequence tells whether the number still holds that segment. */
typedef struct record_target {
    uint64_t location;
    uint64_t sequence;
} record_target;

/* Value of RECORD_BATCH_END. */
typedef struct record_batch_end {
    uint32_t count;
    uint32_t reserved;
} record_batch_end;

#define SEGMENT_HEADER_BYTES 4096u

typedef struct segment_header {
    uint64_t magic;
    uint16_t version;
    uint16_t reader_version; /* smallest version that can read it */
    uint32_t number;         /* the upper 16 bits of this segment's locations */
    uint64_t sequence;       /* order of creation, never used twice */
    uint64_t capacity;       /* bytes preallocated, header included */
    uint8_t store_id[16];
    uint32_t seed;     /* start of every record's checksum */
    uint32_t checksum; /* CRC32C of the fields above */
    /* Not covered above: rewritten in place, at most once a second. */
    uint64_t synced;          /* everything below is on the device */
    uint32_t synced_checksum; /* CRC32C of synced */
    uint32_t reserved;
} segment_header;

_Static_assert(sizeof(record_header) == 32, "record header");
_Static_assert(sizeof(segment_header) == 72, "segment header");

/* In the index a dead entry has the delete bit set in its stamp: its record is a tombstone, or a value
 * that expired. */
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

/* What an expiry record points at; whether that is there is another question. false: it is none. */
static inline bool record_points(const record_header *record, record_target *target)
{
    if (record->kind != RECORD_EXPIRY || record->value_size != sizeof *target)
        return false;
    memcpy(target, record_value(record), sizeof *target);
    return target->location >> 40 == 0;
}

/* The checksum a record at this offset must carry. */
uint32_t record_checksum(uint32_t seed, uint64_t offset, const record_header *record);

/* What lies at offset in a segment of which `limit` bytes may be read: its total size when it is a whole,
 * valid record; 0 otherwise. */
uint64_t record_check(const uint8_t *segment, uint64_t offset, uint64_t limit, uint32_t seed);

/* The same without the checksum: are its sizes possible here? */
uint64_t record_extent(const uint8_t *segment, uint64_t offset, uint64_t limit);

uint32_t segment_header_checksum(const segment_header *header);

#endif
