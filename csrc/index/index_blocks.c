/*
 * index_blocks.c: the index file and its free blocks.  See index_blocks.h.
 *
 * fallocate has allocated every byte of the file below `backed`, so a store into the mapping cannot
 * meet a full disk.  A kill between growing the file and storing `backed` may leave bytes above it;
 * the next open cuts them off.  Much more address space is reserved than the file needs, so growth
 * never moves the mapping.
 *
 * Clearing punches a hole and does not truncate.  A prefetch of another thread, which takes no
 * lock, may still read an old block; it must find zeros there, not a SIGBUS.
 */
#include "index/index_blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"

#define PAGE_BYTES 4096u
#define HEADER_BYTES PAGE_BYTES
#define DIRECTORY_BYTES (INDEX_SLOTS * 8u)
#define DIRECTORY_START (HEADER_BYTES + INDEX_OWNER_BYTES)
#define DATA_START (DIRECTORY_START + DIRECTORY_BYTES)

#define FORMAT_VERSION 1u
#define MINIMUM_READER 1u

#define DEFAULT_RESERVE (UINT64_C(128) << 30)
#define LEAST_SPARE (UINT64_C(16) << 20)      /* the least address space beyond the file */
#define LARGEST_RESERVE (UINT64_C(512) << 30) /* 32-bit block ids end there */
#define LEAST_STEP (UINT64_C(1) << 20)
#define LARGEST_STEP (UINT64_C(32) << 20)

/* Small blocks are cut from whole pages, if one is found within so many words.  The blocks that an
 * open walks then lie together. */
#define PAGE_SEARCH_WORDS 256u

static const char MAGIC[8] = {'O', 'O', 'R', 'T', 'I', 'N', 'D', 'X'};

typedef struct file_header {
    char magic[8];
    uint32_t format;
    uint32_t minimum_reader;
    uint32_t slots;
    uint32_t owner_bytes;
    uint32_t unit_bytes;
    uint32_t checksum; /* CRC32C of the fields before it */
    uint64_t backed;   /* changes as the file grows, compared with the file's size */
} file_header;

_Static_assert(DATA_START % PAGE_BYTES == 0, "units start on a page");
_Static_assert(offsetof(file_header, checksum) == 28, "the header has no padding");

static file_header *header_of(const index_blocks *blocks)
{
    return (file_header *)blocks->base;
}

void *index_blocks_owner(index_blocks *blocks)
{
    return blocks->base + HEADER_BYTES;
}

/* ---- bitmaps ------------------------------------------------------------ */

static bool bitmap_init(index_bitmap *map, uint64_t bound)
{
    void *memory;
    map->word_count = (bound + 63) / 64;
    map->summary_count = (map->word_count + 63) / 64;
    memory = mmap(NULL, (map->word_count + map->summary_count) * 8, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    map->words = memory;
    map->summary = map->words + map->word_count;
    map->count = 0;
    map->lowest = map->summary_count;
    return true;
}

static void bitmap_release(index_bitmap *map)
{
    if (map->words != NULL)
        (void)munmap(map->words, (map->word_count + map->summary_count) * 8);
    map->words = NULL;
}

static void bitmap_empty(index_bitmap *map)
{
    if (map->count != 0)
        (void)madvise(map->words, (map->word_count + map->summary_count) * 8, MADV_DONTNEED);
    map->count = 0;
    map->lowest = map->summary_count;
}

static bool bitmap_has(const index_bitmap *map, uint64_t member)
{
    return map->words[member / 64] >> member % 64 & 1;
}

static void bitmap_add_word(index_bitmap *map, uint64_t word, uint64_t bits)
{
    OORT_ASSERT((map->words[word] & bits) == 0, "a block of the index is given back once");
    map->words[word] |= bits;
    map->summary[word / 64] |= UINT64_C(1) << word % 64;
    map->count += (uint64_t)__builtin_popcountll(bits);
    if (word / 64 < map->lowest)
        map->lowest = word / 64;
}

/* No number from first to first + count - 1 may be a member. */
static void bitmap_add_range(index_bitmap *map, uint64_t first, uint64_t count)
{
    while (count > 0) {
        uint64_t bit = first % 64;
        uint64_t run = 64 - bit < count ? 64 - bit : count;
        uint64_t bits = run == 64 ? UINT64_MAX : ((UINT64_C(1) << run) - 1) << bit;
        bitmap_add_word(map, first / 64, bits);
        first += run;
        count -= run;
    }
}

/* All bits must be members. */
static void bitmap_remove_bits(index_bitmap *map, uint64_t word, uint64_t bits)
{
    OORT_ASSERT((map->words[word] & bits) == bits, "only a free block of the index is taken");
    map->words[word] &= ~bits;
    if (map->words[word] == 0)
        map->summary[word / 64] &= ~(UINT64_C(1) << word % 64);
    map->count -= (uint64_t)__builtin_popcountll(bits);
}

/* The first word with a member at or after `from`; UINT64_MAX if no such word exists. */
static uint64_t bitmap_next_word(const index_bitmap *map, uint64_t from)
{
    uint64_t at = from / 64;
    uint64_t bits;
    if (at >= map->summary_count)
        return UINT64_MAX;
    bits = map->summary[at] & UINT64_MAX << from % 64;
    while (bits == 0) {
        if (++at >= map->summary_count)
            return UINT64_MAX;
        bits = map->summary[at];
    }
    return at * 64 + (uint64_t)__builtin_ctzll(bits);
}

/* Removes and returns the lowest member.  The set must not be empty. */
static uint64_t bitmap_take(index_bitmap *map)
{
    uint64_t word, bit;
    while (map->summary[map->lowest] == 0)
        map->lowest++;
    word = map->lowest * 64 + (uint64_t)__builtin_ctzll(map->summary[map->lowest]);
    bit = (uint64_t)__builtin_ctzll(map->words[word]);
    bitmap_remove_bits(map, word, UINT64_C(1) << bit);
    return word * 64 + bit;
}

/* ---- the file ----------------------------------------------------------- */

static uint32_t header_checksum(const file_header *header)
{
    return oort_crc32c(0, header, offsetof(file_header, checksum));
}

static int allocate_range(int fd, uint64_t from, uint64_t to)
{
    int code;
    do {
        code = posix_fallocate(fd, (off_t)from, (off_t)(to - from));
    } while (code == EINTR);
    return code;
}

static int32_t status_of_errno(int code)
{
    return code == ENOSPC || code == EDQUOT || code == EFBIG ? OORT_ERR_FULL : OORT_ERR_IO;
}

/* The caller holds the lock, or there are no other threads yet. */
static int32_t grow(index_blocks *blocks, uint64_t least)
{
    uint64_t old = blocks->backed;
    uint64_t step = old / 64 / PAGE_BYTES * PAGE_BYTES;
    int code;
    if (step < LEAST_STEP)
        step = LEAST_STEP;
    if (step > LARGEST_STEP)
        step = LARGEST_STEP;
    for (;;) {
        if (step > blocks->reserved - old)
            step = blocks->reserved - old;
        if (step < least)
            return OORT_ERR_FULL;
        code = allocate_range(blocks->fd, old, old + step);
        if (code == 0)
            break;
        /* The disk is nearly full, but its last pages are still useful. */
        if (status_of_errno(code) != OORT_ERR_FULL || step == least)
            return status_of_errno(code);
        step = step / 4 / PAGE_BYTES * PAGE_BYTES;
        if (step < least)
            step = least;
    }
    __atomic_store_n(&header_of(blocks)->backed, old + step, __ATOMIC_RELEASE);
    __atomic_store_n(&blocks->backed, old + step, __ATOMIC_RELEASE);
    bitmap_add_range(&blocks->free_units, old / INDEX_UNIT_BYTES, step / INDEX_UNIT_BYTES);
    return OORT_OK;
}

static void release(index_blocks *blocks)
{
    bitmap_release(&blocks->free_units);
    bitmap_release(&blocks->free_small);
    if (blocks->base != NULL)
        (void)munmap(blocks->base, blocks->reserved);
    if (blocks->fd >= 0)
        (void)close(blocks->fd);
    blocks->base = NULL;
    blocks->fd = -1;
}

/* Maps the file with as much address space as possible, and makes the bitmaps. */
static int32_t map_file(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                        uint64_t file_bytes, oort_error *error)
{
    uint64_t least = file_bytes + LEAST_SPARE;
    uint64_t reserve = reserve_bytes == 0 ? DEFAULT_RESERVE : reserve_bytes;
    void *base = MAP_FAILED;
    if (reserve < least)
        reserve = reserve_bytes == 0 ? 2 * least : least;
    if (reserve > LARGEST_RESERVE)
        reserve = LARGEST_RESERVE;
    if (file_bytes > reserve)
        return oort_fail(error, OORT_ERR_DAMAGED, 0, "%s: the file is larger than an index can be",
                         path);
    reserve = (reserve + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    for (;;) {
        base = mmap(NULL, reserve, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, blocks->fd,
                    0);
        if (base != MAP_FAILED || reserve == least)
            break;
        reserve = reserve / 2 > least ? reserve / 2 / PAGE_BYTES * PAGE_BYTES : least;
    }
    if (base == MAP_FAILED)
        return oort_fail(error, OORT_ERR_NOMEM, errno,
                         "%s: cannot map %llu bytes: %s; raise the limit on address space", path,
                         (unsigned long long)reserve, strerror(errno));
    blocks->base = base;
    blocks->reserved = reserve;
    blocks->directory = (uint64_t *)(void *)(blocks->base + DIRECTORY_START);
    /* Access is random, and readahead would evict pages in use.  A failure costs only speed. */
    (void)madvise(base, reserve, MADV_RANDOM);
    (void)madvise(base, reserve, MADV_DONTDUMP);
    if (!bitmap_init(&blocks->free_units, reserve / INDEX_UNIT_BYTES) ||
        !bitmap_init(&blocks->free_small, reserve / INDEX_SMALL_BYTES))
        return oort_fail(error, OORT_ERR_NOMEM, errno, "%s: no memory for the free-block maps",
                         path);
    return OORT_OK;
}

static void start(index_blocks *blocks)
{
    memset(blocks, 0, sizeof *blocks);
    blocks->fd = -1;
}

static int32_t init_lock(index_blocks *blocks, oort_error *error)
{
    int code = pthread_mutex_init(&blocks->lock, NULL);
    if (code != 0)
        return oort_fail(error, OORT_ERR_NOMEM, code, "cannot make a lock: %s", strerror(code));
    return OORT_OK;
}

static int32_t make_file(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                         oort_error *error)
{
    file_header header = {.format = FORMAT_VERSION,
                          .minimum_reader = MINIMUM_READER,
                          .slots = INDEX_SLOTS,
                          .owner_bytes = INDEX_OWNER_BYTES,
                          .unit_bytes = INDEX_UNIT_BYTES,
                          .backed = DATA_START};
    int32_t status;
    int code;
    /* The old file is unlinked and not truncated, so a process that has mapped it keeps its
     * pages. */
    if (unlink(path) != 0 && errno != ENOENT)
        return oort_fail(error, OORT_ERR_IO, errno, "%s: cannot remove the old index: %s", path,
                         strerror(errno));
    blocks->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (blocks->fd < 0)
        return oort_fail(error, OORT_ERR_IO, errno, "%s: cannot create the index: %s", path,
                         strerror(errno));
    code = allocate_range(blocks->fd, 0, DATA_START);
    if (code != 0)
        return oort_fail(error, status_of_errno(code), code, "%s: cannot allocate the index: %s",
                         path, strerror(code));
    status = map_file(blocks, path, reserve_bytes, DATA_START, error);
    if (status != OORT_OK)
        return status;
    blocks->backed = DATA_START;
    memcpy(header.magic, MAGIC, sizeof header.magic);
    header.checksum = header_checksum(&header);
    *header_of(blocks) = header;
    return init_lock(blocks, error);
}

int32_t index_blocks_create(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                            oort_error *error)
{
    int32_t status;
    start(blocks);
    status = make_file(blocks, path, reserve_bytes, error);
    if (status != OORT_OK)
        release(blocks);
    return status;
}

static int32_t check_header(const file_header *header, const char *path, uint64_t file_bytes,
                            uint64_t *backed, oort_error *error)
{
    if (memcmp(header->magic, MAGIC, sizeof MAGIC) != 0)
        return oort_fail(error, OORT_ERR_DAMAGED, 0, "%s: not an oort index", path);
    if (header->checksum != header_checksum(header))
        return oort_fail(error, OORT_ERR_DAMAGED, 0, "%s: the header's checksum does not match",
                         path);
    if (header->minimum_reader > FORMAT_VERSION)
        return oort_fail(error, OORT_ERR_FORMAT, 0,
                         "%s: index format %u needs a newer oort (this one reads up to %u)", path,
                         header->format, FORMAT_VERSION);
    if (header->slots != INDEX_SLOTS || header->owner_bytes != INDEX_OWNER_BYTES ||
        header->unit_bytes != INDEX_UNIT_BYTES)
        return oort_fail(error, OORT_ERR_DAMAGED, 0, "%s: the index has another layout", path);
    if (header->backed < DATA_START || header->backed > file_bytes ||
        header->backed % PAGE_BYTES != 0)
        return oort_fail(error, OORT_ERR_DAMAGED, 0, "%s: the size does not match the header",
                         path);
    *backed = header->backed;
    return OORT_OK;
}

static int32_t load_file(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                         oort_error *error)
{
    struct stat status_of_file;
    file_header header;
    ssize_t got;
    int32_t status;
    int code;
    blocks->fd = open(path, O_RDWR | O_CLOEXEC);
    if (blocks->fd < 0)
        return oort_fail(error, OORT_ERR_IO, errno, "%s: cannot open the index: %s", path,
                         strerror(errno));
    got = pread(blocks->fd, &header, sizeof header, 0);
    if (got < 0 || fstat(blocks->fd, &status_of_file) != 0)
        return oort_fail(error, OORT_ERR_IO, errno, "%s: cannot read the index: %s", path,
                         strerror(errno));
    if ((size_t)got < sizeof header || status_of_file.st_size < (off_t)DATA_START)
        return oort_fail(error, OORT_ERR_DAMAGED, 0, "%s: the file is too short for an index",
                         path);
    status = check_header(&header, path, (uint64_t)status_of_file.st_size, &blocks->backed, error);
    if (status != OORT_OK)
        return status;
    if ((uint64_t)status_of_file.st_size > blocks->backed &&
        ftruncate(blocks->fd, (off_t)blocks->backed) != 0)
        return oort_fail(error, OORT_ERR_IO, errno, "%s: cannot truncate the index: %s", path,
                         strerror(errno));
    /* A copied file may have holes. */
    code = allocate_range(blocks->fd, 0, blocks->backed);
    if (code != 0)
        return oort_fail(error, status_of_errno(code), code, "%s: cannot allocate the index: %s",
                         path, strerror(code));
    status = map_file(blocks, path, reserve_bytes, blocks->backed, error);
    if (status != OORT_OK)
        return status;
    (void)madvise(blocks->base, DATA_START, MADV_WILLNEED);
    bitmap_add_range(&blocks->free_units, DATA_START / INDEX_UNIT_BYTES,
                     (blocks->backed - DATA_START) / INDEX_UNIT_BYTES);
    return init_lock(blocks, error);
}

int32_t index_blocks_open(index_blocks *blocks, const char *path, uint64_t reserve_bytes,
                          oort_error *error)
{
    int32_t status;
    start(blocks);
    status = load_file(blocks, path, reserve_bytes, error);
    if (status != OORT_OK)
        release(blocks);
    return status;
}

int32_t index_blocks_close(index_blocks *blocks, bool sync, oort_error *error)
{
    int32_t status = OORT_OK;
    if (sync && (msync(blocks->base, blocks->backed, MS_SYNC) != 0 || fsync(blocks->fd) != 0))
        status = oort_fail(error, OORT_ERR_IO, errno, "cannot sync the index: %s", strerror(errno));
    (void)pthread_mutex_destroy(&blocks->lock);
    release(blocks);
    return status;
}

/* ---- blocks ------------------------------------------------------------- */

bool index_blocks_claim_unit(index_blocks *blocks, uint32_t id)
{
    uint64_t unit = id / INDEX_UNIT_BLOCKS;
    if (id % INDEX_UNIT_BLOCKS != 0 || (uint64_t)id * INDEX_SMALL_BYTES >= blocks->backed ||
        !bitmap_has(&blocks->free_units, unit))
        return false;
    bitmap_remove_bits(&blocks->free_units, unit / 64, UINT64_C(1) << unit % 64);
    return true;
}

bool index_blocks_claim_small(index_blocks *blocks, uint32_t id)
{
    uint32_t first = id - id % INDEX_UNIT_BLOCKS;
    if ((uint64_t)id * INDEX_SMALL_BYTES >= blocks->backed)
        return false;
    if (index_blocks_claim_unit(blocks, first))
        bitmap_add_range(&blocks->free_small, first, INDEX_UNIT_BLOCKS);
    if (!bitmap_has(&blocks->free_small, id))
        return false;
    bitmap_remove_bits(&blocks->free_small, id / 64, UINT64_C(1) << id % 64);
    return true;
}

/* Cuts a page of units into small blocks, or a single unit if no whole page is near.  There must be
 * a free unit. */
static void cut_small(index_blocks *blocks)
{
    index_bitmap *units = &blocks->free_units;
    const uint64_t page_units = PAGE_BYTES / INDEX_UNIT_BYTES;
    uint64_t word = bitmap_next_word(units, units->lowest * 64);
    uint64_t unit;
    _Static_assert(PAGE_BYTES / INDEX_UNIT_BYTES == 8, "a page is one byte of the bitmap");
    for (uint32_t tries = 0; word != UINT64_MAX && tries < PAGE_SEARCH_WORDS; tries++) {
        for (uint64_t at = 0; at < 64; at += page_units) {
            if ((units->words[word] >> at & 0xff) == 0xff) {
                bitmap_remove_bits(units, word, UINT64_C(0xff) << at);
                bitmap_add_range(&blocks->free_small, (word * 64 + at) * INDEX_UNIT_BLOCKS,
                                 page_units * INDEX_UNIT_BLOCKS);
                return;
            }
        }
        word = bitmap_next_word(units, word + 1);
    }
    unit = bitmap_take(units);
    bitmap_add_range(&blocks->free_small, unit * INDEX_UNIT_BLOCKS, INDEX_UNIT_BLOCKS);
}

int32_t index_blocks_take(index_blocks *blocks, uint32_t *units, uint32_t unit_count,
                          uint32_t *small, uint32_t small_count)
{
    int32_t status = OORT_OK;
    (void)pthread_mutex_lock(&blocks->lock);
    while (blocks->free_small.count < small_count && status == OORT_OK) {
        if (blocks->free_units.count == 0)
            status = grow(blocks, PAGE_BYTES);
        else
            cut_small(blocks);
    }
    if (status == OORT_OK && blocks->free_units.count < unit_count) {
        uint64_t missing = (unit_count - blocks->free_units.count) * INDEX_UNIT_BYTES;
        status = grow(blocks, (missing + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    }
    if (status == OORT_OK) {
        for (uint32_t i = 0; i < small_count; i++)
            small[i] = (uint32_t)bitmap_take(&blocks->free_small);
        for (uint32_t i = 0; i < unit_count; i++)
            units[i] = (uint32_t)(bitmap_take(&blocks->free_units) * INDEX_UNIT_BLOCKS);
    }
    (void)pthread_mutex_unlock(&blocks->lock);
    return status;
}

void index_blocks_give(index_blocks *blocks, const uint32_t *units, uint32_t unit_count,
                       const uint32_t *small, uint32_t small_count)
{
    (void)pthread_mutex_lock(&blocks->lock);
    for (uint32_t i = 0; i < unit_count; i++)
        bitmap_add_word(&blocks->free_units, units[i] / INDEX_UNIT_BLOCKS / 64,
                        UINT64_C(1) << units[i] / INDEX_UNIT_BLOCKS % 64);
    for (uint32_t i = 0; i < small_count; i++)
        bitmap_add_word(&blocks->free_small, small[i] / 64, UINT64_C(1) << small[i] % 64);
    (void)pthread_mutex_unlock(&blocks->lock);
}

int32_t index_blocks_clear(index_blocks *blocks, oort_error *error)
{
    int32_t status = OORT_OK;
    uint64_t end;
    (void)pthread_mutex_lock(&blocks->lock);
    end = blocks->backed;
    for (uint32_t slot = 0; slot < INDEX_SLOTS; slot++)
        __atomic_store_n(&blocks->directory[slot], 0, __ATOMIC_RELEASE);
    bitmap_empty(&blocks->free_units);
    bitmap_empty(&blocks->free_small);
    /* The size is lowered before the hole is made.  After a kill in between, open cuts off the
     * rest. */
    __atomic_store_n(&header_of(blocks)->backed, DATA_START, __ATOMIC_RELEASE);
    __atomic_store_n(&blocks->backed, DATA_START, __ATOMIC_RELEASE);
    if (end > DATA_START && fallocate(blocks->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      (off_t)DATA_START, (off_t)(end - DATA_START)) != 0) {
        /* A file system without holes keeps the space.  The index uses it again as it grows. */
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            status = oort_fail(error, OORT_ERR_IO, errno, "cannot give the index's space back: %s",
                               strerror(errno));
    }
    (void)pthread_mutex_unlock(&blocks->lock);
    return status;
}
