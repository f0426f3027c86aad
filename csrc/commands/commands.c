/*
 * commands.c: the command table, looking a command up, and the checks every command passes before
 * it is executed. Contract in commands.h, the rows in commands.def.
 */
#include "commands/commands.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "commands/commands_hot.h"
#include "commands/keyspace.h"

/* Redis shows at most this much of an unknown command's name, and of its arguments. */
#define UNKNOWN_SHOWN 128

#define HOT(id, ...) COMMAND_##id,
#define COLD(id, ...) COMMAND_##id,
enum command_position {
#include "commands/commands.def"
    COMMAND_COUNT
};
#undef HOT
#undef COLD

#define HOT(id, ...) command_##id,
#define COLD(id, ...) NULL,
static const oort_handler handlers[] = {
#include "commands/commands.def"
};
#undef HOT
#undef COLD

#define HOT(id, text, ...) sizeof(text) - 1,
#define COLD(id, text, ...) sizeof(text) - 1,
static const uint8_t name_sizes[] = {
#include "commands/commands.def"
};
#undef HOT
#undef COLD

/* The flags by the names they have in the table. */
enum {
    WRITE = OORT_CMD_WRITE,
    READONLY = OORT_CMD_READONLY,
    DENYOOM = OORT_CMD_DENYOOM,
    ADMIN = OORT_CMD_ADMIN,
    NOSCRIPT = OORT_CMD_NOSCRIPT,
    LOADING = OORT_CMD_LOADING,
    STALE = OORT_CMD_STALE,
    FAST = OORT_CMD_FAST,
    NO_AUTH = OORT_CMD_NO_AUTH,
    ALLOW_BUSY = OORT_CMD_ALLOW_BUSY,
    NO_MULTI = OORT_CMD_NO_MULTI,
    NO_ASYNC_LOADING = OORT_CMD_NO_ASYNC_LOADING
};

#define ROW(row_name, row_arity, first, last, step, row_flags, row_group, row_since,               \
            row_categories, row_complexity, row_arguments, row_summary)                            \
    {.name = row_name,                                                                             \
     .summary = row_summary,                                                                       \
     .since = row_since,                                                                           \
     .group = row_group,                                                                           \
     .complexity = row_complexity,                                                                 \
     .categories = row_categories,                                                                 \
     .arguments = row_arguments,                                                                   \
     .arity = row_arity,                                                                           \
     .flags = row_flags,                                                                           \
     .first_key = first,                                                                           \
     .last_key = last,                                                                             \
     .key_step = step},
#define HOT(id, name, arity, first, last, step, flags, ...)                                        \
    ROW(name, arity, first, last, step, (flags) | OORT_CMD_HOT, __VA_ARGS__)
#define COLD(id, ...) ROW(__VA_ARGS__)
static const oort_command_info infos[] = {
#include "commands/commands.def"
};
#undef HOT
#undef COLD
#undef ROW

uint32_t oort_command_count(void)
{
    return COMMAND_COUNT;
}

const oort_command_info *oort_command_at(uint32_t position)
{
    return position < COMMAND_COUNT ? &infos[position] : NULL;
}

uint32_t oort_command_first_key(int32_t command)
{
    return command >= 0 && handlers[command] != NULL ? (uint32_t)infos[command].first_key : 0;
}

/* ---- lookup ------------------------------------------------------------- */

/* A name of up to 8 letters in one word, first letter lowest. */
#define LETTERS(a, b, c, d, e, f, g, h)                                                            \
    ((uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24 |              \
     (uint64_t)(e) << 32 | (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)

/* Up to 8 bytes in one word, letters in lower case. No byte that is not a letter becomes one. */
static inline uint64_t lower_word(const uint8_t *name, size_t size)
{
    uint64_t word = 0;
    if (size >= 4) {
        uint32_t head;
        uint32_t tail;
        memcpy(&head, name, 4);
        memcpy(&tail, name + size - 4, 4);
        word = head | (uint64_t)tail << (8 * (size - 4));
    } else {
        for (size_t i = 0; i < size; i++) {
            word |= (uint64_t)name[i] << (8 * i);
        }
    }
    return word | (UINT64_C(0x2020202020202020) >> (64 - 8 * size));
}

/* The hot commands of up to 8 letters: a switch on one word. */
static int32_t find_hot(const uint8_t *name, size_t size)
{
    switch (lower_word(name, size)) {
    case LETTERS('g', 'e', 't', 0, 0, 0, 0, 0):
        return COMMAND_get;
    case LETTERS('s', 'e', 't', 0, 0, 0, 0, 0):
        return COMMAND_set;
    case LETTERS('d', 'e', 'l', 0, 0, 0, 0, 0):
        return COMMAND_del;
    case LETTERS('t', 't', 'l', 0, 0, 0, 0, 0):
        return COMMAND_ttl;
    case LETTERS('m', 'g', 'e', 't', 0, 0, 0, 0):
        return COMMAND_mget;
    case LETTERS('m', 's', 'e', 't', 0, 0, 0, 0):
        return COMMAND_mset;
    case LETTERS('i', 'n', 'c', 'r', 0, 0, 0, 0):
        return COMMAND_incr;
    case LETTERS('d', 'e', 'c', 'r', 0, 0, 0, 0):
        return COMMAND_decr;
    case LETTERS('p', 'i', 'n', 'g', 0, 0, 0, 0):
        return COMMAND_ping;
    case LETTERS('e', 'c', 'h', 'o', 0, 0, 0, 0):
        return COMMAND_echo;
    case LETTERS('p', 't', 't', 'l', 0, 0, 0, 0):
        return COMMAND_pttl;
    case LETTERS('t', 'y', 'p', 'e', 0, 0, 0, 0):
        return COMMAND_type;
    case LETTERS('s', 'e', 't', 'n', 'x', 0, 0, 0):
        return COMMAND_setnx;
    case LETTERS('s', 'e', 't', 'e', 'x', 0, 0, 0):
        return COMMAND_setex;
    case LETTERS('g', 'e', 't', 'e', 'x', 0, 0, 0):
        return COMMAND_getex;
    case LETTERS('t', 'o', 'u', 'c', 'h', 0, 0, 0):
        return COMMAND_touch;
    case LETTERS('e', 'x', 'i', 's', 't', 's', 0, 0):
        return COMMAND_exists;
    case LETTERS('u', 'n', 'l', 'i', 'n', 'k', 0, 0):
        return COMMAND_unlink;
    case LETTERS('e', 'x', 'p', 'i', 'r', 'e', 0, 0):
        return COMMAND_expire;
    case LETTERS('m', 's', 'e', 't', 'n', 'x', 0, 0):
        return COMMAND_msetnx;
    case LETTERS('p', 's', 'e', 't', 'e', 'x', 0, 0):
        return COMMAND_psetex;
    case LETTERS('g', 'e', 't', 's', 'e', 't', 0, 0):
        return COMMAND_getset;
    case LETTERS('g', 'e', 't', 'd', 'e', 'l', 0, 0):
        return COMMAND_getdel;
    case LETTERS('s', 't', 'r', 'l', 'e', 'n', 0, 0):
        return COMMAND_strlen;
    case LETTERS('a', 'p', 'p', 'e', 'n', 'd', 0, 0):
        return COMMAND_append;
    case LETTERS('i', 'n', 'c', 'r', 'b', 'y', 0, 0):
        return COMMAND_incrby;
    case LETTERS('d', 'e', 'c', 'r', 'b', 'y', 0, 0):
        return COMMAND_decrby;
    case LETTERS('p', 'e', 'x', 'p', 'i', 'r', 'e', 0):
        return COMMAND_pexpire;
    case LETTERS('p', 'e', 'r', 's', 'i', 's', 't', 0):
        return COMMAND_persist;
    case LETTERS('e', 'x', 'p', 'i', 'r', 'e', 'a', 't'):
        return COMMAND_expireat;
    case LETTERS('g', 'e', 't', 'r', 'a', 'n', 'g', 'e'):
        return COMMAND_getrange;
    case LETTERS('s', 'e', 't', 'r', 'a', 'n', 'g', 'e'):
        return COMMAND_setrange;
    default:
        return -1;
    }
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

int32_t oort_command_find(const uint8_t *name, size_t size)
{
    if (size > 0 && size <= 8) {
        int32_t hot = find_hot(name, size);
        if (hot >= 0) {
            return hot;
        }
    }
    for (uint32_t i = 0; i < COMMAND_COUNT; i++) {
        if (name_sizes[i] == size && same_name(name, infos[i].name, size)) {
            return (int32_t)i;
        }
    }
    return -1;
}

/* ---- execution ---------------------------------------------------------- */

/* How much of an argument is shown: up to a NUL, and no more than room. */
static int shown(const oort_bytes *argument, int room)
{
    const uint8_t *end = memchr(argument->data, 0, argument->size);
    uint64_t size = end == NULL ? argument->size : (uint64_t)(end - argument->data);
    return size < (uint64_t)room ? (int)size : room;
}

static int32_t reject(struct oort_call *call, const char *text)
{
    call->rejected = true;
    reply_error(call->output, text);
    return OORT_CALL_DONE;
}

static int32_t reject_unknown(struct oort_call *call)
{
    /* Arguments are added until they fill 128 bytes, the last may go beyond by its quotes. */
    char arguments[UNKNOWN_SHOWN * 2];
    int used = 0;
    arguments[0] = 0;
    for (uint32_t i = 1; i < call->argc && used < UNKNOWN_SHOWN; i++) {
        const oort_bytes *argument = &call->argv[i];
        used += snprintf(arguments + used, sizeof(arguments) - (size_t)used, "'%.*s' ",
                         shown(argument, UNKNOWN_SHOWN - used), (const char *)argument->data);
    }
    char text[UNKNOWN_SHOWN * 4];
    snprintf(text, sizeof(text), "ERR unknown command '%.*s', with args beginning with: %s",
             shown(&call->argv[0], UNKNOWN_SHOWN), (const char *)call->argv[0].data, arguments);
    return reject(call, text);
}

static int32_t reject_arity(struct oort_call *call, const oort_command_info *info)
{
    char text[UNKNOWN_SHOWN];
    snprintf(text, sizeof(text), "ERR wrong number of arguments for '%s' command", info->name);
    return reject(call, text);
}

/* The first words of lines in an HTTP request.  A browser can be made to send one to a port of its
 * own machine, with commands in its body: like Redis, go no further. */
static bool is_http(const oort_bytes *name)
{
    return argument_is(name, "post") || argument_is(name, "host:");
}

int32_t oort_execute(struct oort_call *call)
{
    call->failed = false;
    call->rejected = false;
    call->begun_ns = 0;
    call->command = oort_command_find(call->argv[0].data, call->argv[0].size);
    /* A subcommand's full name is found in the table, but nobody can call it by that. */
    if (call->command < 0 ||
        (handlers[call->command] == NULL && strchr(infos[call->command].name, '|') != NULL)) {
        call->command = -1;
        return is_http(&call->argv[0]) ? OORT_CALL_FOREIGN : reject_unknown(call);
    }
    const oort_command_info *info = &infos[call->command];
    if (info->arity > 0 ? call->argc != (uint32_t)info->arity
                        : call->argc < (uint32_t)-info->arity) {
        return reject_arity(call, info);
    }
    if ((call->flags & OORT_CONN_AUTHENTICATED) == 0 && (info->flags & OORT_CMD_NO_AUTH) == 0) {
        return reject(call, "NOAUTH Authentication required.");
    }
    oort_handler handler = handlers[call->command];
    if (handler != NULL && call->countdown != NULL && call->countdown[call->command]-- == 0) {
        call->begun_ns = clock_monotonic_ns();
    }
    return handler == NULL ? OORT_CALL_NOT_HOT : handler(call);
}
