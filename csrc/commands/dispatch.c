/*
 * dispatch.c: the checks of every request, in order, and the keys of native commands.  Contract in
 * call.h.
 *
 * The table says where a command's keys are.  Dispatch locks all keys once and calls the handler.
 * Only this file removes output and counted lookups again, and unlocks keys.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "commands/handler.h"
#include "commands/table.h"
#include "store/store.h"

/* Bytes of an unknown command's name, and of its arguments, in the error.  Redis's limit. */
#define UNKNOWN_SHOWN 128
#define STACK_KEYS 64u
#define ERROR_BYTES 640
#define KEY_TOO_LONG "ERR key is longer than 65536 bytes"

/* ---- refusing ----------------------------------------------------------- */

/* How many bytes of an argument an error shows: those before a NUL, at most room. */
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
    /* Arguments are added until they fill 128 bytes.  The quotes of the last may go beyond. */
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

static int32_t reject_subcommand(struct oort_call *call, const struct command_row *container)
{
    char name[UNKNOWN_SHOWN];
    char text[UNKNOWN_SHOWN * 3];
    size_t size = 0;
    for (; container->info.name[size] != 0 && size + 1 < sizeof(name); size++) {
        char letter = container->info.name[size];
        name[size] = letter >= 'a' && letter <= 'z' ? (char)(letter - 'a' + 'A') : letter;
    }
    name[size] = 0;
    snprintf(text, sizeof(text), "ERR unknown subcommand '%.*s'. Try %s HELP.",
             shown(&call->argv[1], UNKNOWN_SHOWN), (const char *)call->argv[1].data, name);
    return reject(call, text);
}

static int32_t reject_arity(struct oort_call *call, const struct command_row *row)
{
    char text[UNKNOWN_SHOWN];
    snprintf(text, sizeof(text), "ERR wrong number of arguments for '%s' command", row->info.name);
    return reject(call, text);
}

/* Whether this is the first word of a line in an HTTP request.  A web page can make a browser send
 * such a request, with commands in its body, to a port of the browser's machine.  Redis closes such
 * a connection too. */
static bool is_http(const oort_bytes *name)
{
    return argument_is(name, "post") || argument_is(name, "host:");
}

/* Append the error reply for a status of the store. */
static int32_t answer_status(struct oort_call *call, int32_t status)
{
    char text[ERROR_BYTES];
    oort_status_error(status, oort_session_error(call->session), text, sizeof(text));
    call_error(call, text);
    return OORT_CALL_DONE;
}

/* ---- keys --------------------------------------------------------------- */

/* Initialise the keys of the request.  false: the error is in the output. */
static bool find_keys(struct oort_call *call, const struct command_row *row, oort_key *keys)
{
    uint32_t argument = (uint32_t)row->info.first_key;
    for (uint32_t i = 0; i < call->key_count; i++, argument += (uint32_t)row->info.key_step) {
        const oort_bytes *name = &call->argv[argument];
        if (name->size > OORT_KEY_CAP) {
            call_error(call, KEY_TOO_LONG);
            return false;
        }
        if (i == 0 && call->first_key != NULL) {
            keys[i] = *call->first_key;
        } else {
            oort_key_init(&keys[i], name->data, name->size, call->database);
        }
    }
    return true;
}

/* ---- executing ---------------------------------------------------------- */

/* Call the handler with its only key locked.  Most commands have one key. */
static int32_t run_with_key(struct oort_call *call, const struct command_row *row)
{
    oort_key own;
    call->keys = call->first_key;
    if (call->keys == NULL) {
        const oort_bytes *name = &call->argv[row->info.first_key];
        if (name->size > OORT_KEY_CAP) {
            return call_error(call, KEY_TOO_LONG);
        }
        oort_key_init(&own, name->data, name->size, call->database);
        call->keys = &own;
    }
    int32_t status = oort_lock(call->session, call->keys, 1);
    if (status == OORT_OK) {
        status = row->handler(call);
        oort_unlock(call->session);
    }
    return status;
}

static int32_t run_with_keys(struct oort_call *call, const struct command_row *row)
{
    oort_key stack[STACK_KEYS];
    oort_key *keys = stack;
    if (call->key_count > STACK_KEYS) {
        keys = malloc((size_t)call->key_count * sizeof(*keys));
        if (keys == NULL) {
            return OORT_ERR_NOMEM;
        }
    }
    int32_t status = OORT_OK;
    if (find_keys(call, row, keys)) {
        call->keys = keys;
        status = oort_lock(call->session, keys, call->key_count);
        if (status == OORT_OK) {
            status = row->handler(call);
            oort_unlock(call->session);
        }
    }
    if (keys != stack) {
        free(keys);
    }
    return status;
}

static int32_t run(struct oort_call *call, const struct command_row *row)
{
    struct output_mark mark = output_mark(call->output);
    uint64_t hits = call->hits;
    uint64_t misses = call->misses;

    call->key_count = command_key_count(row, call->argc);
    int32_t status = call->key_count == 1   ? run_with_key(call, row)
                     : call->key_count == 0 ? row->handler(call)
                                            : run_with_keys(call, row);
    if (status == OORT_OK || status == OORT_MISSING) {
        return OORT_CALL_DONE;
    }
    output_rollback(call->output, mark);
    call->hits = hits;
    call->misses = misses;
    call->failed = false;
    return status == OORT_COLD ? OORT_CALL_COLD : answer_status(call, status);
}

int32_t oort_execute(struct oort_call *call)
{
    call->failed = false;
    call->rejected = false;
    call->begun_ns = 0;
    /* Does the command exist? */
    if (call->command == COMMAND_UNKNOWN) {
        return is_http(&call->argv[0]) ? OORT_CALL_FOREIGN : reject_unknown(call);
    }
    if (call->command < 0) {
        return reject_subcommand(call, command_unknown_container(call->command));
    }
    const struct command_row *row = command_row_at(call->command);
    /* Is the number of arguments right? */
    int32_t arity = row->info.arity;
    if (arity > 0 ? call->argc != (uint32_t)arity : call->argc < (uint32_t)-arity) {
        return reject_arity(call, row);
    }
    /* May this connection run the command? */
    if ((call->flags & OORT_CONN_AUTHENTICATED) == 0 && (row->info.flags & OORT_CMD_NO_AUTH) == 0) {
        return reject(call, "NOAUTH Authentication required.");
    }
    /* Does the device keep up with the writes? */
    if (call->writes_wait && (row->info.flags & OORT_CMD_WRITE) != 0) {
        return OORT_CALL_LATER;
    }
    /* Is it a native command? */
    if (row->handler == NULL) {
        return OORT_CALL_PYTHON;
    }
    if (call->countdown != NULL && call->countdown[call->command]-- == 0) {
        call->begun_ns = clock_monotonic_ns();
    }
    return run(call, row);
}
