/*
 * fuzz_index.c: libFuzzer target for the index.  The first byte of the input chooses the mode:
 *
 *  even: the rest are operations of three bytes each.  They are applied to an index and to a plain
 *        array, which must agree at the end and after a reopen.
 *  odd:  the rest are writes of five bytes each over the header, the directory and the structure
 *        of a small index file.  The file must then be refused, or opened and survive every
 *        operation.
 */
#include "index/index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEYS 2048u
#define RESERVE (UINT64_C(24) << 20)
#define DIRECTORY_START (4096u + INDEX_OWNER_BYTES)
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two slots.  The keys of the second slot have mostly one tag, so that chains and deep tries are
 * reached. */
static uint32_t slot_of(uint32_t key)
{
    return key % 2 * 3;
}

static uint64_t hash_of(uint32_t key)
{
    uint32_t slot = slot_of(key);
    uint32_t tag = key * 2654435761u >> 8;
    if (slot == 3)
        tag = key % 64 < 60 ? 0x654321u : 0x654320u >> key / 2 % 8;
    return (uint64_t)slot << 50 | (uint64_t)(tag & 0xffffffu) << 26;
}

static bool find(oort_index *index, uint32_t key, index_cursor *at)
{
    index_entry entry;
    index_seek(index, hash_of(key), (uint8_t)(key % 3), at);
    while (index_next(index, at, &entry))
        if (index_location(entry) == key + 1)
            return true;
    return false;
}

static void set(oort_index *index, bool *model, uint32_t key, bool present)
{
    index_cursor at;
    bool there = find(index, key, &at);
    MUST(there == model[key]);
    if (there && !present)
        index_erase(index, &at);
    else if (there)
        index_replace(index, &at, key + 1, 7);
    else if (present)
        MUST(index_insert(index, hash_of(key), (uint8_t)(key % 3), key + 1, 7) == OORT_OK);
    model[key] = present;
}

static int erase_every_third(void *context, uint32_t slot, index_entry entry)
{
    bool *model = context;
    (void)slot;
    if (index_location(entry) % 3 != 0)
        return INDEX_KEEP;
    if (model != NULL)
        model[index_location(entry) - 1] = false;
    return INDEX_ERASE;
}

static uint64_t scan_all(oort_index *index)
{
    static index_entry entries[KEYS];
    uint64_t total = 0;
    for (uint32_t slot = 0; slot < 4; slot++) {
        uint32_t tag = 0, count = 0, next = 0;
        while (tag != INDEX_SLOT_END &&
               index_scan_slot(index, slot, tag, entries, KEYS, &count, &next) == OORT_OK) {
            MUST(next > tag);
            total += count;
            tag = next;
        }
    }
    return total;
}

static int count_seen(void *context, uint32_t slot, index_entry entry)
{
    uint8_t *seen = context;
    uint64_t key = index_location(entry) - 1;
    MUST(key < KEYS && slot_of((uint32_t)key) == slot);
    seen[key]++;
    return INDEX_KEEP;
}

static void check(oort_index *index, const bool *model)
{
    static uint8_t seen[KEYS];
    uint64_t present = 0;
    memset(seen, 0, sizeof seen);
    for (uint32_t slot = 0; slot < 4; slot++)
        index_visit_slot(index, slot, count_seen, seen);
    for (uint32_t key = 0; key < KEYS; key++) {
        index_cursor at;
        MUST(seen[key] == model[key]);
        MUST(key % 32 > 3 || find(index, key, &at) == model[key]);
        present += model[key];
    }
    MUST(scan_all(index) == present);
}

static oort_index *reopen(oort_index *index, const char *path)
{
    MUST(index_close(index, false, NULL) == OORT_OK);
    index = index_open(path, RESERVE, NULL);
    MUST(index != NULL);
    return index;
}

static void run_operations(const char *path, const uint8_t *data, size_t size)
{
    static bool model[KEYS];
    oort_index *index = index_create(path, RESERVE, NULL);
    MUST(index != NULL);
    memset(model, 0, sizeof model);
    for (; size >= 3; data += 3, size -= 3) {
        uint32_t key = (uint32_t)(data[1] | data[2] << 8) % KEYS;
        uint32_t run = 1u << data[0] / 8 % 12;
        switch (data[0] % 8) {
        case 0:
        case 1:
        case 2:
            for (uint32_t i = 0; i < run; i++)
                set(index, model, (key + i * 2) % KEYS, true);
            break;
        case 3:
        case 4:
            for (uint32_t i = 0; i < run; i++)
                set(index, model, (key + i * 2) % KEYS, false);
            break;
        case 5:
            index_visit_slot(index, slot_of(key), erase_every_third, model);
            break;
        case 6:
            index = reopen(index, path);
            break;
        default:
            if (run == 1) {
                MUST(index_clear(index, NULL) == OORT_OK);
                memset(model, 0, sizeof model);
            }
            index_prefetch(index, hash_of(key), 1);
            index_prefetch(index, hash_of(key), 2);
        }
    }
    check(index, model);
    index = reopen(index, path);
    check(index, model);
    MUST(index_close(index, false, NULL) == OORT_OK);
}

/* Three areas matter: the header, the first words of the directory, and the first blocks after
 * it. */
static size_t target_of(const uint8_t *write)
{
    size_t offset = (size_t)(write[1] | write[2] << 8);
    switch (write[0] % 4) {
    case 0:
        return offset % 64;
    case 1:
        return DIRECTORY_START + offset % 64;
    default:
        return DIRECTORY_START + INDEX_SLOTS * 8 + offset % 16384;
    }
}

static void run_damage(const char *path, const uint8_t *data, size_t size)
{
    oort_index *index = index_create(path, RESERVE, NULL);
    uint8_t *bytes;
    MUST(index != NULL);
    for (uint32_t key = 0; key < KEYS; key++)
        MUST(index_insert(index, hash_of(key), (uint8_t)(key % 3), key + 1, 7) == OORT_OK);
    bytes = (uint8_t *)index_owner_area(index) - 4096;
    for (; size >= 5; data += 5, size -= 5) {
        uint8_t *at = bytes + target_of(data);
        if (data[0] & 0x80)
            memcpy(at, data + 3, 2);
        else
            *at ^= data[3];
    }
    MUST(index_close(index, false, NULL) == OORT_OK);
    index = index_open(path, RESERVE, NULL);
    if (index == NULL)
        return;
    (void)scan_all(index);
    for (uint32_t key = 0; key < KEYS; key++) {
        index_cursor at;
        index_prefetch(index, hash_of(key), 2);
        if (key % 8 == 0 && find(index, key, &at))
            index_erase(index, &at);
        else if (key % 8 == 1)
            (void)index_insert(index, hash_of(key), (uint8_t)(key % 3), key + 1, 8);
    }
    for (uint32_t slot = 0; slot < 4; slot++)
        index_visit_slot(index, slot, erase_every_third, NULL);
    MUST(index_close(index, false, NULL) == OORT_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    if (size == 0 || size > 4096)
        return 0;
    (void)snprintf(path, sizeof path, "/dev/shm/oort-fuzz-index-%ld", (long)getpid());
    if (data[0] % 2 == 0)
        run_operations(path, data + 1, size - 1);
    else
        run_damage(path, data + 1, size - 1);
    (void)unlink(path);
    return 0;
}
