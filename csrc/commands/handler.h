/*
 * handler.h: functions for handlers: errors, arguments, counted reads, and the expiry options that
 * several commands share.  The contract of a handler is in call.h.
 *
 * A function that returns bool appends the error to the output before it returns false, except
 * argument_is.
 */
#ifndef OORT_COMMANDS_HANDLER_H
#define OORT_COMMANDS_HANDLER_H

#include "commands/call.h"

/* A value of more bytes is sent from its place in the store, without a copy. */
#define OORT_PIN_BYTES 65536u

/* Append an error; text begins with the error's code.  Returns OORT_OK, the status of a handler
 * whose reply is complete. */
int32_t call_error(struct oort_call *call, const char *text);
/* "ERR wrong number of arguments for 'name' command", "ERR invalid expire time in 'name'
 * command". */
int32_t call_wrong_arguments(struct oort_call *call);
int32_t call_invalid_expire(struct oort_call *call);
/* "ERR Unsupported option <argv[at]>". */
int32_t call_unsupported_option(struct oort_call *call, uint32_t at);
/* Read argv[at] as an integer. */
bool call_integer(struct oort_call *call, uint32_t at, int64_t *out);
/* Whether an argument is this word in any case; word is in lower case. */
bool argument_is(const oort_bytes *argument, const char *word);
/* Whether a value of size + more bytes is within value_cap. */
bool call_fits(struct oort_call *call, uint64_t size, uint64_t more);

/* oort_read, and the hit or miss is counted. */
int32_t call_read(struct oort_call *call, const oort_key *key, oort_value *out);
/* oort_look, and the hit or miss is counted. */
int32_t call_look(struct oort_call *call, const oort_key *key, oort_value *out);
/* oort_write with a value of one part. */
int32_t call_write(struct oort_call *call, const oort_key *key, oort_bytes value,
                   int64_t expiry_ms);
/* oort_remove for a key whose record an earlier call found in memory.  If the record has left
 * memory since, this function fetches it, because earlier removals of the command cannot be
 * undone. */
int32_t call_remove_read(struct oort_call *call, const oort_key *key);
/* Reply with the value as a bulk string.  A value above OORT_PIN_BYTES is not copied. */
void call_reply_value(struct oort_call *call, oort_value *value);
/* OORT_OK: reply with the value.  OORT_MISSING: reply with null.  Other statuses: append
 * nothing. */
void call_reply_found(struct oort_call *call, int32_t status, oort_value *value);

/* ---- expiry options (EX, PX, EXAT, PXAT) -------------------------------- */

enum expire_unit { EXPIRE_NONE = 0, EXPIRE_EX, EXPIRE_PX, EXPIRE_EXAT, EXPIRE_PXAT };

/* Read argv[at] as a point in time, in milliseconds since 1970. */
bool call_expire_time(struct oort_call *call, enum expire_unit unit, uint32_t at, int64_t *out);

/* The options of SET after the value, and of GETEX after the key. */
struct set_options {
    enum expire_unit unit;
    uint32_t expire_at;      /* argv index of the time */
    bool not_exists, exists; /* NX, XX */
    bool get, keep_ttl, persist;
};
bool call_set_options(struct oort_call *call, struct set_options *options);
bool call_getex_options(struct oort_call *call, struct set_options *options);

#endif
