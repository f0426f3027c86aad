/*
 * string.c: the commands that read or write string values.  Replies and errors are those of Redis
 * 7.0.
 *
 * Each command finishes its reads before it writes.  A command may append its reply, such as an old
 * value, before the write.  Dispatch removes the reply if the write fails.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/handler.h"
#include "commands/handlers.h"

/* The size of the longest number that INCRBYFLOAT reads or writes, with its NUL. */
#define FLOAT_BYTES 5120

/* ---- reading ------------------------------------------------------------ */

int32_t command_get(struct oort_call *call)
{
    oort_value value;
    int32_t status = call_read(call, call->keys, &value);
    call_reply_found(call, status, &value);
    return status;
}

int32_t command_strlen(struct oort_call *call)
{
    oort_value value;
    int32_t status = call_look(call, call->keys, &value);
    if (status == OORT_OK || status == OORT_MISSING) {
        reply_integer(call->output, status == OORT_OK ? (int64_t)value.size : 0);
    }
    return status;
}

int32_t command_mget(struct oort_call *call)
{
    reply_array(call->output, call->key_count);
    int32_t status = OORT_OK;
    for (uint32_t i = 0; i < call->key_count && (status == OORT_OK || status == OORT_MISSING);
         i++) {
        oort_value value;
        status = call_read(call, &call->keys[i], &value);
        call_reply_found(call, status, &value);
    }
    return status;
}

int32_t command_getrange(struct oort_call *call)
{
    int64_t start;
    int64_t end;
    if (!call_integer(call, 2, &start) || !call_integer(call, 3, &end)) {
        return OORT_OK;
    }
    oort_value value;
    int32_t status = call_read(call, call->keys, &value);
    if (status == OORT_OK) {
        int64_t size = (int64_t)value.size;
        bool backwards = start < 0 && end < 0 && start > end;
        start = start < 0 ? start + size : start;
        end = end < 0 ? end + size : end;
        start = start < 0 ? 0 : start;
        end = end < 0 ? 0 : end;
        end = end >= size ? size - 1 : end;
        if (backwards || start > end) {
            reply_bulk(call->output, "", 0);
        } else {
            reply_bulk(call->output, value.data + start, (uint64_t)(end - start + 1));
        }
    } else if (status == OORT_MISSING) {
        reply_bulk(call->output, "", 0);
    }
    return status;
}

/* ---- SET and its relatives ---------------------------------------------- */

/* SET with conditions; argv[2] is the value.  The reply gets the old value before it is
 * overwritten. */
static int32_t set_conditionally(struct oort_call *call, const struct set_options *options,
                                 int64_t expiry)
{
    oort_value old;
    int32_t status = options->get ? call_read(call, call->keys, &old)
                                  : oort_look(call->session, call->keys, &old);
    if (status != OORT_OK && status != OORT_MISSING) {
        return status;
    }
    bool found = status == OORT_OK;
    if (options->get) {
        call_reply_found(call, status, &old);
    }
    if ((options->not_exists && found) || (options->exists && !found)) {
        if (!options->get) {
            reply_null(call->output, call->protocol);
        }
        return OORT_OK;
    }
    if (options->keep_ttl) {
        expiry = found ? old.expiry_ms : 0;
    }
    status = call_write(call, call->keys, call->argv[2], expiry);
    if (status == OORT_OK && !options->get) {
        reply_simple(call->output, "OK");
    }
    return status;
}

int32_t command_set(struct oort_call *call)
{
    if (call->argc == 3) {
        int32_t status = call_write(call, call->keys, call->argv[2], 0);
        if (status == OORT_OK) {
            reply_simple(call->output, "OK");
        }
        return status;
    }
    struct set_options options;
    int64_t expiry = 0;
    if (!call_set_options(call, &options) ||
        (options.unit != EXPIRE_NONE &&
         !call_expire_time(call, options.unit, options.expire_at, &expiry))) {
        return OORT_OK;
    }
    return set_conditionally(call, &options, expiry);
}

int32_t command_setnx(struct oort_call *call)
{
    oort_value old;
    int32_t status = oort_look(call->session, call->keys, &old);
    if (status == OORT_OK) {
        reply_integer(call->output, 0);
    } else if (status == OORT_MISSING) {
        status = call_write(call, call->keys, call->argv[2], 0);
        if (status == OORT_OK) {
            reply_integer(call->output, 1);
        }
    }
    return status;
}

static int32_t set_expiring(struct oort_call *call, enum expire_unit unit)
{
    int64_t expiry;
    if (!call_expire_time(call, unit, 2, &expiry)) {
        return OORT_OK;
    }
    int32_t status = call_write(call, call->keys, call->argv[3], expiry);
    if (status == OORT_OK) {
        reply_simple(call->output, "OK");
    }
    return status;
}

int32_t command_setex(struct oort_call *call)
{
    return set_expiring(call, EXPIRE_EX);
}

int32_t command_psetex(struct oort_call *call)
{
    return set_expiring(call, EXPIRE_PX);
}

int32_t command_getset(struct oort_call *call)
{
    static const struct set_options options = {.get = true};
    return set_conditionally(call, &options, 0);
}

/* Reply with the value, then remove the key or change its expiry. */
static int32_t get_and_change(struct oort_call *call, oort_value *value, bool remove,
                              bool set_expiry, int64_t expiry)
{
    int32_t status = OORT_OK;
    call_reply_value(call, value);
    if (remove) {
        status = oort_remove(call->session, call->keys);
    } else if (set_expiry) {
        status = oort_set_expiry(call->session, call->keys, expiry);
    }
    return status;
}

int32_t command_getdel(struct oort_call *call)
{
    oort_value value;
    int32_t status = call_read(call, call->keys, &value);
    if (status == OORT_OK) {
        status = get_and_change(call, &value, true, false, 0);
    } else if (status == OORT_MISSING) {
        reply_null(call->output, call->protocol);
    }
    return status;
}

int32_t command_getex(struct oort_call *call)
{
    struct set_options options;
    if (!call_getex_options(call, &options)) {
        return OORT_OK;
    }
    oort_value value;
    int32_t status = call_read(call, call->keys, &value);
    if (status == OORT_MISSING) {
        reply_null(call->output, call->protocol);
    } else if (status == OORT_OK) {
        /* As in Redis, an invalid time is an error only if the key exists. */
        int64_t expiry = 0;
        if (options.unit != EXPIRE_NONE &&
            !call_expire_time(call, options.unit, options.expire_at, &expiry)) {
            return OORT_OK;
        }
        bool past = options.unit != EXPIRE_NONE && expiry <= oort_session_now_ms(call->session);
        bool change = options.unit != EXPIRE_NONE || (options.persist && value.expiry_ms != 0);
        status = get_and_change(call, &value, past, change, expiry);
    }
    return status;
}

/* ---- several keys at once ----------------------------------------------- */

/* Write all pairs of argv, or none. */
static int32_t write_pairs(struct oort_call *call)
{
    if (call->key_count == 1) {
        return call_write(call, call->keys, call->argv[2], 0);
    }
    uint64_t bytes = 0;
    for (uint32_t i = 1; i < call->argc; i++) {
        bytes += call->argv[i].size;
    }
    int32_t status = oort_batch_begin(call->session, call->key_count, bytes);
    if (status != OORT_OK) {
        return status;
    }
    for (uint32_t i = 0; i < call->key_count && status == OORT_OK; i++) {
        /* The store reads the parts again at the commit, so they point into argv. */
        status = oort_write(call->session, &call->keys[i], &call->argv[2 + 2 * i], 1, 0);
    }
    if (status != OORT_OK) {
        oort_batch_abort(call->session);
        return status;
    }
    return oort_batch_commit(call->session);
}

int32_t command_mset(struct oort_call *call)
{
    if (call->argc % 2 == 0) {
        return call_wrong_arguments(call);
    }
    int32_t status = write_pairs(call);
    if (status == OORT_OK) {
        reply_simple(call->output, "OK");
    }
    return status;
}

int32_t command_msetnx(struct oort_call *call)
{
    if (call->argc % 2 == 0) {
        return call_wrong_arguments(call);
    }
    int32_t status = OORT_MISSING;
    for (uint32_t i = 0; i < call->key_count && status == OORT_MISSING; i++) {
        oort_value old;
        status = oort_look(call->session, &call->keys[i], &old);
    }
    if (status == OORT_OK) {
        reply_integer(call->output, 0);
    } else if (status == OORT_MISSING) {
        status = write_pairs(call);
        if (status == OORT_OK) {
            reply_integer(call->output, 1);
        }
    }
    return status;
}

/* ---- changing a value --------------------------------------------------- */

/* Read the value before a change.  A missing key has an empty value without expiry. */
static int32_t read_or_empty(struct oort_call *call, const oort_key *key, oort_value *value,
                             bool *found)
{
    int32_t status = oort_read(call->session, key, value);
    *found = status == OORT_OK;
    if (status == OORT_MISSING) {
        memset(value, 0, sizeof(*value));
        status = OORT_OK;
    }
    return status;
}

int32_t command_append(struct oort_call *call)
{
    oort_value old;
    bool found;
    int32_t status = read_or_empty(call, call->keys, &old, &found);
    if (status == OORT_OK) {
        if (found && !call_fits(call, old.size, call->argv[2].size)) {
            return OORT_OK;
        }
        uint64_t size = old.size + call->argv[2].size;
        oort_bytes parts[2] = {{.data = old.data, .size = old.size}, call->argv[2]};
        status = oort_write(call->session, call->keys, found ? parts : &parts[1], found ? 2 : 1,
                            old.expiry_ms);
        if (status == OORT_OK) {
            reply_integer(call->output, (int64_t)size);
        }
    }
    return status;
}

static int32_t increment(struct oort_call *call, int64_t by)
{
    oort_value old;
    bool found;
    int32_t status = read_or_empty(call, call->keys, &old, &found);
    if (status != OORT_OK) {
        return status;
    }
    int64_t number = 0;
    if (found && !resp_parse_integer(old.data, old.size, &number)) {
        call_error(call, "ERR value is not an integer or out of range");
    } else if (__builtin_add_overflow(number, by, &number)) {
        call_error(call, "ERR increment or decrement would overflow");
    } else {
        char text[24];
        int size = snprintf(text, sizeof(text), "%lld", (long long)number);
        oort_bytes value = {.data = (const uint8_t *)text, .size = (uint64_t)size};
        status = call_write(call, call->keys, value, old.expiry_ms);
        if (status == OORT_OK) {
            reply_integer(call->output, number);
        }
    }
    return status;
}

int32_t command_incr(struct oort_call *call)
{
    return increment(call, 1);
}

int32_t command_decr(struct oort_call *call)
{
    return increment(call, -1);
}

int32_t command_incrby(struct oort_call *call)
{
    int64_t by;
    return call_integer(call, 2, &by) ? increment(call, by) : OORT_OK;
}

int32_t command_decrby(struct oort_call *call)
{
    int64_t by;
    if (!call_integer(call, 2, &by)) {
        return OORT_OK;
    }
    if (by == INT64_MIN) {
        return call_error(call, "ERR decrement would overflow");
    }
    return increment(call, -by);
}

/* Read a number as INCRBYFLOAT does: the whole text, no leading space, not a NaN. */
static bool parse_float(const uint8_t *data, uint64_t size, long double *out)
{
    char text[FLOAT_BYTES];
    if (size == 0 || size >= sizeof(text) || data[0] == ' ' ||
        (data[0] >= '\t' && data[0] <= '\r')) {
        return false;
    }
    memcpy(text, data, size);
    text[size] = 0;
    char *end;
    errno = 0;
    *out = strtold(text, &end);
    if (end != text + size || isnan(*out) || errno == EINVAL) {
        return false;
    }
    return errno != ERANGE || !(isinf(*out) || fpclassify(*out) == FP_ZERO);
}

/* Write 17 digits after the point, without trailing zeros and without an exponent.  Returns the
 * size. */
static uint64_t format_float(long double value, char *text, size_t capacity)
{
    int printed = snprintf(text, capacity, "%.17Lf", value);
    uint64_t size = printed < 0 || (size_t)printed >= capacity ? 0 : (uint64_t)printed;
    if (memchr(text, '.', size) != NULL) {
        while (text[size - 1] == '0') {
            size--;
        }
        if (text[size - 1] == '.') {
            size--;
        }
    }
    if (size == 2 && memcmp(text, "-0", 2) == 0) {
        text[0] = '0';
        size = 1;
    }
    return size;
}

int32_t command_incrbyfloat(struct oort_call *call)
{
    oort_value old;
    bool found;
    int32_t status = read_or_empty(call, call->keys, &old, &found);
    if (status != OORT_OK) {
        return status;
    }
    long double number = 0;
    long double by;
    if ((found && !parse_float(old.data, old.size, &number)) ||
        !parse_float(call->argv[2].data, call->argv[2].size, &by)) {
        call_error(call, "ERR value is not a valid float");
    } else if (isnan(number + by) || isinf(number + by)) {
        call_error(call, "ERR increment would produce NaN or Infinity");
    } else {
        char text[FLOAT_BYTES];
        uint64_t size = format_float(number + by, text, sizeof(text));
        oort_bytes value = {.data = (const uint8_t *)text, .size = size};
        status = call_write(call, call->keys, value, old.expiry_ms);
        if (status == OORT_OK) {
            reply_bulk(call->output, text, size);
        }
    }
    return status;
}

/* Overwrite the value from the offset on.  The new value is the bytes before the offset, zeros up
 * to the offset if the value is shorter, the new bytes, and the bytes after them. */
static int32_t write_range(struct oort_call *call, const oort_key *key, const oort_value *old,
                           uint64_t offset)
{
    oort_bytes new = call->argv[3];
    uint64_t before = offset < old->size ? offset : old->size;
    uint64_t end = offset + new.size;
    uint64_t after = end < old->size ? old->size - end : 0;
    uint8_t *zeros = NULL;
    oort_bytes parts[4];
    uint32_t count = 0;
    if (before > 0) {
        parts[count++] = (oort_bytes){.data = old->data, .size = before};
    }
    if (offset > before) {
        zeros = calloc(1, offset - before);
        if (zeros == NULL) {
            return OORT_ERR_NOMEM;
        }
        parts[count++] = (oort_bytes){.data = zeros, .size = offset - before};
    }
    parts[count++] = new;
    if (after > 0) {
        parts[count++] = (oort_bytes){.data = old->data + end, .size = after};
    }
    int32_t status = oort_write(call->session, key, parts, count, old->expiry_ms);
    free(zeros);
    if (status == OORT_OK) {
        reply_integer(call->output, (int64_t)(end + after));
    }
    return status;
}

int32_t command_setrange(struct oort_call *call)
{
    int64_t offset;
    if (!call_integer(call, 2, &offset)) {
        return OORT_OK;
    }
    if (offset < 0) {
        return call_error(call, "ERR offset is out of range");
    }
    oort_value old;
    bool found;
    int32_t status = read_or_empty(call, call->keys, &old, &found);
    if (status == OORT_OK) {
        if (call->argv[3].size == 0) {
            reply_integer(call->output, (int64_t)old.size);
        } else if (call_fits(call, (uint64_t)offset, call->argv[3].size)) {
            status = write_range(call, call->keys, &old, (uint64_t)offset);
        }
    }
    return status;
}
