/*
 * table.c: the rows of the command table, and a hash of their names.  Contract in table.h.
 *
 * The hash is perfect: no two names have the same value, so a lookup reads one place of the table
 * and compares one name.  generate.py uses the same arithmetic and has chosen the multiplier.
 */
#include "commands/table.h"

#include <string.h>

#include "commands/handlers.h"

#include "commands/table.inc"

static const struct command_row *at(int32_t position)
{
    return &rows[position];
}

/* ---- finding a name ----------------------------------------------------- */

struct name_words {
    uint64_t head, tail;
};

#define LOWER_CASE UINT64_C(0x2020202020202020)

/* The first eight bytes of a name, and the last eight of a longer name, with letters in lower case.
 * A byte that is not a letter never becomes a letter. */
static inline struct name_words name_words(const uint8_t *name, size_t size)
{
    struct name_words words = {0, 0};
    if (size >= 8) {
        memcpy(&words.head, name, 8);
        words.head |= LOWER_CASE;
        if (size > 8) {
            memcpy(&words.tail, name + size - 8, 8);
            words.tail |= LOWER_CASE;
        }
        return words;
    }
    if (size >= 4) {
        uint32_t first;
        uint32_t last;
        memcpy(&first, name, 4);
        memcpy(&last, name + size - 4, 4);
        words.head = first | (uint64_t)last << (8 * (size - 4));
    } else {
        for (size_t i = 0; i < size; i++) {
            words.head |= (uint64_t)name[i] << (8 * i);
        }
    }
    words.head |= LOWER_CASE >> (64 - 8 * size);
    return words;
}

static inline uint64_t hash_of(struct name_words words, size_t size, int32_t container)
{
    uint64_t mixed = words.head ^ (words.tail << 29 | words.tail >> 35) ^
                     (uint64_t)(container + 1) << 40 ^ (uint64_t)size << 56;
    return mixed * COMMAND_HASH_MULTIPLIER >> (64 - COMMAND_HASH_BITS);
}

static bool same_name(const uint8_t *name, const char *lower, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = name[i];
        if (byte >= 'A' && byte <= 'Z') {
            byte |= 0x20;
        }
        if (byte != (uint8_t)lower[i]) {
            return false;
        }
    }
    return true;
}

/* container: -1 for a command; for a subcommand, the position of its command. */
static inline int32_t find(const uint8_t *name, size_t size, int32_t container)
{
    if (size == 0 || size > UINT8_MAX) {
        return COMMAND_UNKNOWN;
    }
    struct name_words words = name_words(name, size);
    int32_t position = positions[hash_of(words, size, container)];
    if (position < 0) {
        return COMMAND_UNKNOWN;
    }
    const struct command_row *row = at(position);
    if (row->name_head != words.head || row->name_tail != words.tail || row->name_size != size ||
        row->info.container != container ||
        (!row->name_is_exact && !same_name(name, row->info.name + row->short_name, size))) {
        return COMMAND_UNKNOWN;
    }
    return position;
}

int32_t command_resolve(const oort_bytes *argv, uint32_t argc)
{
    int32_t position = find(argv[0].data, argv[0].size, -1);
    if (position < 0 || argc == 1 || (at(position)->info.flags & OORT_CMD_CONTAINER) == 0) {
        return position;
    }
    int32_t subcommand = find(argv[1].data, argv[1].size, position);
    return subcommand >= 0 ? subcommand : COMMAND_UNKNOWN - 1 - position;
}

const struct command_row *command_unknown_container(int32_t answer)
{
    return answer < COMMAND_UNKNOWN ? at(COMMAND_UNKNOWN - 1 - answer) : NULL;
}

const struct command_row *command_row_at(int32_t position)
{
    return at(position);
}

/* ---- keys --------------------------------------------------------------- */

uint32_t command_native_key(int32_t position)
{
    return position >= 0 && at(position)->handler != NULL ? (uint32_t)at(position)->info.first_key
                                                          : 0;
}

uint32_t command_key_count(const struct command_row *row, uint32_t argc)
{
    const oort_command_info *info = &row->info;
    if (info->first_key == 0) {
        return 0;
    }
    if (info->first_key == info->last_key) {
        return 1;
    }
    int64_t last = info->last_key > 0 ? info->last_key : (int64_t)argc + info->last_key;
    return (uint32_t)((last - info->first_key) / info->key_step) + 1;
}

/* ---- the public face ---------------------------------------------------- */

uint32_t oort_command_count(void)
{
    return COMMAND_COUNT;
}

const oort_command_info *oort_command_at(uint32_t position)
{
    return position < COMMAND_COUNT ? &rows[position].info : NULL;
}

int32_t oort_command_find(const uint8_t *name, size_t size)
{
    const uint8_t *bar = size == 0 ? NULL : memchr(name, '|', size);
    if (bar == NULL) {
        return find(name, size, -1);
    }
    int32_t container = find(name, (size_t)(bar - name), -1);
    size_t above = (size_t)(bar - name) + 1;
    return container < 0 ? COMMAND_UNKNOWN : find(bar + 1, size - above, container);
}
