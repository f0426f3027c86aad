/*
 * handler.c: errors, arguments and counted reads.  Contract in handler.h.
 */
#include "commands/handler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

#define ERROR_BYTES 640
/* A fetched record can be evicted again before it is read.  If this happens more often, the disk
 * has a problem. */
#define FETCH_ATTEMPTS 100

int32_t call_error(struct oort_call *call, const char *text)
{
    call->failed = true;
    reply_error(call->output, text);
    return OORT_OK;
}

static int32_t named_error(struct oort_call *call, const char *format)
{
    char text[ERROR_BYTES];
    snprintf(text, sizeof(text), "ERR %s '%s' command", format,
             oort_command_at((uint32_t)call->command)->name);
    return call_error(call, text);
}

int32_t call_wrong_arguments(struct oort_call *call)
{
    return named_error(call, "wrong number of arguments for");
}

int32_t call_invalid_expire(struct oort_call *call)
{
    return named_error(call, "invalid expire time in");
}

int32_t call_unsupported_option(struct oort_call *call, uint32_t at)
{
    /* The option can be as long as any argument.  The error shows it up to a NUL. */
    const oort_bytes *option = &call->argv[at];
    const uint8_t *end = memchr(option->data, 0, option->size);
    uint64_t size = end == NULL ? option->size : (uint64_t)(end - option->data);
    char *text = malloc(size + ERROR_BYTES);
    if (text == NULL) {
        char short_of_memory[ERROR_BYTES];
        oort_status_error(OORT_ERR_NOMEM, "", short_of_memory, sizeof(short_of_memory));
        return call_error(call, short_of_memory);
    }
    int prefix = snprintf(text, ERROR_BYTES, "ERR Unsupported option ");
    memcpy(text + prefix, option->data, size);
    text[(uint64_t)prefix + size] = 0;
    call_error(call, text);
    free(text);
    return OORT_OK;
}

bool call_integer(struct oort_call *call, uint32_t at, int64_t *out)
{
    if (resp_parse_integer(call->argv[at].data, call->argv[at].size, out)) {
        return true;
    }
    call_error(call, "ERR value is not an integer or out of range");
    return false;
}

bool argument_is(const oort_bytes *argument, const char *word)
{
    uint64_t i = 0;
    for (; i < argument->size && word[i] != 0; i++) {
        uint8_t byte = argument->data[i];
        if (byte >= 'A' && byte <= 'Z') {
            byte |= 0x20;
        }
        if (byte != (uint8_t)word[i]) {
            return false;
        }
    }
    return i == argument->size && word[i] == 0;
}

bool call_fits(struct oort_call *call, uint64_t size, uint64_t more)
{
    if (size <= call->value_cap && more <= call->value_cap - size) {
        return true;
    }
    call_error(call, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    return false;
}

/* ---- the store -------------------------------------------------------- */

static int32_t count_lookup(struct oort_call *call, int32_t status)
{
    if (status == OORT_OK) {
        call->hits++;
    } else if (status == OORT_MISSING) {
        call->misses++;
    }
    return status;
}

int32_t call_read(struct oort_call *call, const oort_key *key, oort_value *out)
{
    return count_lookup(call, oort_read(call->session, key, out));
}

int32_t call_look(struct oort_call *call, const oort_key *key, oort_value *out)
{
    return count_lookup(call, oort_look(call->session, key, out));
}

int32_t call_write(struct oort_call *call, const oort_key *key, oort_bytes value, int64_t expiry_ms)
{
    return oort_write(call->session, key, &value, 1, expiry_ms);
}

int32_t call_remove_read(struct oort_call *call, const oort_key *key)
{
    int32_t status = oort_remove(call->session, key);
    for (int i = 0; status == OORT_COLD && i < FETCH_ATTEMPTS; i++) {
        int32_t fetched = oort_fetch(call->session->store, oort_session_cold(call->session));
        if (fetched != OORT_OK) {
            return fetched;
        }
        status = oort_remove(call->session, key);
    }
    return status == OORT_COLD ? OORT_ERR_IO : status;
}

static void release_value(void *owner, void *pin)
{
    oort_value value = {.pin = pin};
    oort_unpin(owner, &value);
}

void call_reply_value(struct oort_call *call, oort_value *value)
{
    if (value->size <= OORT_PIN_BYTES) {
        reply_bulk(call->output, value->data, value->size);
        return;
    }
    oort_pin(call->session, value);
    struct pinned_bytes bytes = {.data = value->data,
                                 .size = value->size,
                                 .release = release_value,
                                 .owner = call->session->store,
                                 .pin = value->pin};
    if (!reply_bulk_pinned(call->output, &bytes)) {
        oort_unpin(call->session->store, value);
    }
}

void call_reply_found(struct oort_call *call, int32_t status, oort_value *value)
{
    if (status == OORT_OK) {
        call_reply_value(call, value);
    } else if (status == OORT_MISSING) {
        reply_null(call->output, call->protocol);
    }
}

/* ---- expiry options ----------------------------------------------------- */

bool call_expire_time(struct oort_call *call, enum expire_unit unit, uint32_t at, int64_t *out)
{
    int64_t time;
    if (!call_integer(call, at, &time)) {
        return false;
    }
    bool seconds = unit == EXPIRE_EX || unit == EXPIRE_EXAT;
    bool relative = unit == EXPIRE_EX || unit == EXPIRE_PX;
    int64_t now = oort_session_now_ms(call->session);
    if (time <= 0 || (seconds && time > INT64_MAX / 1000)) {
        call_invalid_expire(call);
        return false;
    }
    if (seconds) {
        time *= 1000;
    }
    if (relative && time > INT64_MAX - now) {
        call_invalid_expire(call);
        return false;
    }
    *out = relative ? time + now : time;
    return true;
}

static enum expire_unit unit_of(const oort_bytes *argument)
{
    if (argument_is(argument, "ex")) {
        return EXPIRE_EX;
    }
    if (argument_is(argument, "px")) {
        return EXPIRE_PX;
    }
    if (argument_is(argument, "exat")) {
        return EXPIRE_EXAT;
    }
    return argument_is(argument, "pxat") ? EXPIRE_PXAT : EXPIRE_NONE;
}

/* Read an option with a time at *at.  false: this is no such option, or it contradicts an earlier
 * option. */
static bool take_expire(struct oort_call *call, uint32_t *at, struct set_options *options)
{
    enum expire_unit unit = unit_of(&call->argv[*at]);
    if (unit == EXPIRE_NONE || *at + 1 >= call->argc || options->keep_ttl || options->persist ||
        (options->unit != EXPIRE_NONE && options->unit != unit)) {
        return false;
    }
    options->unit = unit;
    options->expire_at = ++*at;
    return true;
}

static bool syntax_error(struct oort_call *call)
{
    call_error(call, "ERR syntax error");
    return false;
}

bool call_set_options(struct oort_call *call, struct set_options *options)
{
    memset(options, 0, sizeof(*options));
    for (uint32_t i = 3; i < call->argc; i++) {
        const oort_bytes *argument = &call->argv[i];
        if (argument_is(argument, "nx") && !options->exists) {
            options->not_exists = true;
        } else if (argument_is(argument, "xx") && !options->not_exists) {
            options->exists = true;
        } else if (argument_is(argument, "get")) {
            options->get = true;
        } else if (argument_is(argument, "keepttl") && options->unit == EXPIRE_NONE) {
            options->keep_ttl = true;
        } else if (!take_expire(call, &i, options)) {
            return syntax_error(call);
        }
    }
    return true;
}

bool call_getex_options(struct oort_call *call, struct set_options *options)
{
    memset(options, 0, sizeof(*options));
    for (uint32_t i = 2; i < call->argc; i++) {
        if (argument_is(&call->argv[i], "persist") && options->unit == EXPIRE_NONE) {
            options->persist = true;
        } else if (!take_expire(call, &i, options)) {
            return syntax_error(call);
        }
    }
    return true;
}
