/*
 * table.c: the rows of the command table, and a hash of their names.  Contract in table.h.
 *
 * The hash is perfect: no two names have the same value, so a lookup reads one place of the table
 * and compares one name.  generate.py uses the same arithmetic and has chosen the multiplier.
 */
#include "commands/table.h"

#include <string.h>

#include "commands/handlers.h"

/* An entry of the hash: a name without its container. */
struct command_name {
    uint64_t head, tail; /* name_words() */
    int16_t position;
    int16_t container;
    uint8_t size;
    bool is_exact; /* the two words and the size identify the name */
    bool is_container;
    uint8_t first_key; /* index in argv; 0: the command has no keys or is not native */
};

#include "commands/table.inc"

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
    if (size < 4) {
        /* One to three bytes.  Some bytes are read twice, which does not change the result. */
        size_t middle = size / 2;
        size_t last = size - 1;
        words.head = name[0] | (uint64_t)name[middle] << (8 * middle) |
                     (uint64_t)name[last] << (8 * last);
    } else if (size <= 8) {
        uint32_t first;
        uint32_t last;
        memcpy(&first, name, 4);
        memcpy(&last, name + size - 4, 4);
        words.head = first | (uint64_t)last << (8 * (size - 4));
    } else {
        memcpy(&words.head, name, 8);
        memcpy(&words.tail, name + size - 8, 8);
        words.head |= LOWER_CASE;
        words.tail |= LOWER_CASE;
        return words;
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

static bool same_name(const uint8_t *name, int32_t position, size_t size)
{
    const char *bar = strchr(command_rows[position].info.name, '|');
    const char *lower = bar == NULL ? command_rows[position].info.name : bar + 1;
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

/* container: -1 for a command; for a subcommand, the position of its command.  NULL: the name is
 * unknown.  A name that is not exact has yet to be compared. */
static inline const struct command_name *look_up(const uint8_t *name, size_t size,
                                                 int32_t container)
{
    if (size == 0 || size > UINT8_MAX) {
        return NULL;
    }
    struct name_words words = name_words(name, size);
    const struct command_name *found = &names[hash_of(words, size, container)];
    bool same = found->head == words.head && found->tail == words.tail && found->size == size &&
                found->container == container;
    return same ? found : NULL;
}

static const struct command_name *find(const uint8_t *name, size_t size, int32_t container)
{
    const struct command_name *found = look_up(name, size, container);
    return found != NULL && (found->is_exact || same_name(name, found->position, size)) ? found
                                                                                        : NULL;
}

/* The commands whose names the hash does not settle: subcommands, and names with a sign. */
static __attribute__((noinline)) int32_t resolve_rest(const oort_bytes *argv, uint32_t argc,
                                                      uint32_t *first_key)
{
    const struct command_name *found = find(argv[0].data, argv[0].size, -1);
    if (found == NULL) {
        return COMMAND_UNKNOWN;
    }
    if (found->is_container && argc > 1) {
        int32_t container = found->position;
        found = find(argv[1].data, argv[1].size, container);
        if (found == NULL) {
            return COMMAND_UNKNOWN - 1 - container;
        }
    }
    *first_key = found->first_key;
    return found->position;
}

int32_t command_resolve(const oort_bytes *argv, uint32_t argc, uint32_t *first_key)
{
    const struct command_name *found = look_up(argv[0].data, argv[0].size, -1);
    *first_key = 0;
    if (found == NULL) {
        return COMMAND_UNKNOWN;
    }
    if (!found->is_exact || found->is_container) {
        return resolve_rest(argv, argc, first_key);
    }
    *first_key = found->first_key;
    return found->position;
}

const struct command_row *command_unknown_container(int32_t answer)
{
    return answer < COMMAND_UNKNOWN ? &command_rows[COMMAND_UNKNOWN - 1 - answer] : NULL;
}

/* ---- the public face ---------------------------------------------------- */

uint32_t oort_command_count(void)
{
    return COMMAND_COUNT;
}

const oort_command_info *oort_command_at(uint32_t position)
{
    return position < COMMAND_COUNT ? &command_rows[position].info : NULL;
}

static int32_t position_of(const struct command_name *name)
{
    return name == NULL ? COMMAND_UNKNOWN : name->position;
}

int32_t oort_command_find(const uint8_t *name, size_t size)
{
    const uint8_t *bar = size == 0 ? NULL : memchr(name, '|', size);
    if (bar == NULL) {
        return position_of(find(name, size, -1));
    }
    int32_t container = position_of(find(name, (size_t)(bar - name), -1));
    size_t above = (size_t)(bar - name) + 1;
    return container < 0 ? COMMAND_UNKNOWN : position_of(find(bar + 1, size - above, container));
}
