/*
 * generic.c: the commands on keys of any type: deleting, counting, expiry, type.
 * Replies and errors are those of Redis 7.0.
 */
#include "commands/handler.h"
#include "commands/handlers.h"

/* ---- deleting and counting ---------------------------------------------- */

int32_t command_del(struct oort_call *call)
{
    int32_t status = OORT_OK;
    int64_t removed = 0;
    if (call->key_count == 1) {
        status = oort_remove(call->session, call->keys);
        removed = status == OORT_OK;
    } else {
        /* Every record must be in memory before the first is removed, because the command may not
         * start again after a removal. */
        for (uint32_t i = 0; i < call->key_count && status >= OORT_OK && status != OORT_COLD; i++) {
            oort_value value;
            status = oort_look(call->session, &call->keys[i], &value);
        }
        for (uint32_t i = 0; i < call->key_count && status >= OORT_OK && status != OORT_COLD; i++) {
            status = call_remove_read(call, &call->keys[i]);
            removed += status == OORT_OK;
        }
    }
    if (status == OORT_OK || status == OORT_MISSING) {
        reply_integer(call->output, removed);
    }
    return status;
}

int32_t command_unlink(struct oort_call *call)
{
    return command_del(call);
}

int32_t command_exists(struct oort_call *call)
{
    int32_t status = OORT_OK;
    int64_t found = 0;
    for (uint32_t i = 0; i < call->key_count && (status == OORT_OK || status == OORT_MISSING);
         i++) {
        oort_value value;
        status = oort_look(call->session, &call->keys[i], &value);
        found += status == OORT_OK;
    }
    if (status == OORT_OK || status == OORT_MISSING) {
        call->hits += (uint64_t)found;
        call->misses += call->key_count - (uint64_t)found;
        reply_integer(call->output, found);
    }
    return status;
}

int32_t command_touch(struct oort_call *call)
{
    return command_exists(call);
}

int32_t command_type(struct oort_call *call)
{
    oort_value value;
    int32_t status = call_look(call, call->keys, &value);
    if (status == OORT_OK || status == OORT_MISSING) {
        reply_simple(call->output, status == OORT_OK ? "string" : "none");
    }
    return status;
}

/* ---- reading an expiry -------------------------------------------------- */

static int32_t read_expiry(struct oort_call *call, bool seconds, bool absolute)
{
    oort_value value;
    int32_t status = call_look(call, call->keys, &value);
    if (status == OORT_MISSING) {
        reply_integer(call->output, -2);
    } else if (status == OORT_OK && value.expiry_ms == 0) {
        reply_integer(call->output, -1);
    } else if (status == OORT_OK) {
        int64_t time = value.expiry_ms;
        if (!absolute) {
            time -= oort_session_now_ms(call->session);
        }
        time = time < 0 ? 0 : time;
        reply_integer(call->output, seconds ? time / 1000 + (time % 1000 >= 500) : time);
    }
    return status;
}

int32_t command_ttl(struct oort_call *call)
{
    return read_expiry(call, true, false);
}

int32_t command_pttl(struct oort_call *call)
{
    return read_expiry(call, false, false);
}

int32_t command_expiretime(struct oort_call *call)
{
    return read_expiry(call, true, true);
}

int32_t command_pexpiretime(struct oort_call *call)
{
    return read_expiry(call, false, true);
}

/* ---- changing an expiry ------------------------------------------------- */

struct expire_options {
    bool none, some, greater, less; /* NX, XX, GT, LT */
};

static bool parse_options(struct oort_call *call, struct expire_options *options)
{
    *options = (struct expire_options){0};
    for (uint32_t i = 3; i < call->argc; i++) {
        const oort_bytes *argument = &call->argv[i];
        if (argument_is(argument, "nx")) {
            options->none = true;
        } else if (argument_is(argument, "xx")) {
            options->some = true;
        } else if (argument_is(argument, "gt")) {
            options->greater = true;
        } else if (argument_is(argument, "lt")) {
            options->less = true;
        } else {
            call_unsupported_option(call, i);
            return false;
        }
    }
    if (options->none && (options->some || options->greater || options->less)) {
        call_error(call, "ERR NX and XX, GT or LT options at the same time are not compatible");
        return false;
    }
    if (options->greater && options->less) {
        call_error(call, "ERR GT and LT options at the same time are not compatible");
        return false;
    }
    return true;
}

/* Read argv[2] as a point in time, in milliseconds since 1970.  It may lie in the past. */
static bool parse_time(struct oort_call *call, bool seconds, bool absolute, int64_t *out)
{
    int64_t time;
    if (!call_integer(call, 2, &time)) {
        return false;
    }
    int64_t base = absolute ? 0 : oort_session_now_ms(call->session);
    if ((seconds && (time > INT64_MAX / 1000 || time < INT64_MIN / 1000))) {
        call_invalid_expire(call);
        return false;
    }
    time = seconds ? time * 1000 : time;
    if (time > INT64_MAX - base) {
        call_invalid_expire(call);
        return false;
    }
    *out = time + base;
    return true;
}

/* Whether the options let `time` replace the key's current expiry.  0: the key has no expiry, which
 * counts as later than every expiry. */
static bool may_expire(const struct expire_options *options, int64_t current, int64_t time)
{
    if (options->none && current != 0) {
        return false;
    }
    if (options->some && current == 0) {
        return false;
    }
    if (options->greater && (current == 0 || time <= current)) {
        return false;
    }
    return !(options->less && current != 0 && time >= current);
}

static int32_t change_expiry(struct oort_call *call, bool seconds, bool absolute)
{
    struct expire_options options;
    int64_t time;
    if (!parse_options(call, &options) || !parse_time(call, seconds, absolute, &time)) {
        return OORT_OK;
    }
    oort_value value;
    int32_t status = oort_look(call->session, call->keys, &value);
    if (status == OORT_MISSING) {
        reply_integer(call->output, 0);
    } else if (status == OORT_OK && !may_expire(&options, value.expiry_ms, time)) {
        reply_integer(call->output, 0);
    } else if (status == OORT_OK) {
        status = time <= oort_session_now_ms(call->session)
                     ? oort_remove(call->session, call->keys)
                     : oort_set_expiry(call->session, call->keys, time);
        if (status == OORT_OK) {
            reply_integer(call->output, 1);
        }
    }
    return status;
}

int32_t command_expire(struct oort_call *call)
{
    return change_expiry(call, true, false);
}

int32_t command_pexpire(struct oort_call *call)
{
    return change_expiry(call, false, false);
}

int32_t command_expireat(struct oort_call *call)
{
    return change_expiry(call, true, true);
}

int32_t command_pexpireat(struct oort_call *call)
{
    return change_expiry(call, false, true);
}

int32_t command_persist(struct oort_call *call)
{
    oort_value value;
    int32_t status = oort_look(call->session, call->keys, &value);
    bool changed = status == OORT_OK && value.expiry_ms != 0;
    if (changed) {
        status = oort_set_expiry(call->session, call->keys, 0);
    }
    if (status == OORT_OK || status == OORT_MISSING) {
        reply_integer(call->output, changed && status == OORT_OK);
    }
    return status;
}
