/*
 * toc.h: the table of contents of a sealed segment, in a file beside it.
 *
 * The file is a toc_header, followed by one toc_entry for each record in the order of the log.  A
 * rebuild of the index, the sweep of expired keys and compaction need no more of a record than its
 * entry, so they read no values.  A lost or damaged table is made again by a scan of its segment.
 */
#ifndef OORT_TOC_H
#define OORT_TOC_H

#include "log/record.h"

#define TOC_MAGIC UINT64_C(0x31434f5454524f4f) /* "OORTTOC1" */

typedef struct toc_header {
    uint64_t magic;
    uint16_t version;
    uint16_t reader_version;
    uint32_t checksum; /* CRC32C of everything after this field, entries included */
    uint64_t sequence;
    uint64_t tail;            /* the segment's size, bytes */
    uint64_t count;           /* entries */
    uint64_t min_stamp;       /* of SET and EXPIRY records; UINT64_MAX without such records */
    int64_t min_expiry_ms;    /* 0: nothing expires */
    uint64_t tombstone_bytes; /* in DELETE and FLUSH records */
    uint64_t min_tombstone_stamp;
    uint64_t max_stamp;
    uint64_t damaged_bytes; /* damage in the segment when the table was made */
} toc_header;

typedef struct toc_entry {
    uint64_t hash; /* ring hash of key and database; 0 for FLUSH */
    uint64_t stamp;
    int64_t expiry_ms;
    uint32_t packed; /* offset in 8-byte units << 8 | database << 4 | kind */
    uint32_t size;   /* of the record with its padding, in 8-byte units */
} toc_entry;

_Static_assert(sizeof(toc_header) == 88, "table of contents header");
_Static_assert(sizeof(toc_entry) == 32, "table of contents entry");

static inline const toc_entry *toc_entries(const toc_header *toc)
{
    return (const toc_entry *)(const void *)(toc + 1);
}

/* The offset of the record in the segment, and its size with the padding, in bytes. */
static inline uint64_t toc_offset(const toc_entry *entry)
{
    return (uint64_t)(entry->packed >> 8) * RECORD_ALIGN;
}
static inline uint64_t toc_size(const toc_entry *entry)
{
    return (uint64_t)entry->size * RECORD_ALIGN;
}
static inline uint8_t toc_database(const toc_entry *entry)
{
    return (uint8_t)(entry->packed >> 4 & 15);
}
/* A record_kind. */
static inline uint32_t toc_kind(const toc_entry *entry)
{
    return entry->packed & 15;
}

/* A table that is being made.  Call toc_begin, then toc_add for each record in order, then set
 * header.tail and header.damaged_bytes, then call toc_write.  Call toc_end in every case. */
typedef struct toc_builder {
    toc_entry *entries;
    uint64_t count, capacity;
    toc_header header;
} toc_builder;

void toc_begin(toc_builder *builder, uint64_t sequence);
/* OORT_OK or OORT_ERR_NOMEM. */
int32_t toc_add(toc_builder *builder, uint64_t offset, const record_header *record, uint64_t size);
/* Writes the file and makes its content durable.  The caller syncs the directory. */
int32_t toc_write(int directory_fd, toc_builder *builder, oort_error *error);
void toc_end(toc_builder *builder);

/* Maps the table of the segment whose file has `capacity` bytes.  NULL if there is no table that
 * matches. verify: also checks the checksum over the entries. */
const toc_header *toc_map(int directory_fd, uint64_t sequence, uint64_t capacity, bool verify,
                          uint64_t *mapped_bytes);

#endif
