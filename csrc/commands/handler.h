/*
 * handler.h: what a handler works with: errors, arguments, reads that are counted, and the expiry
 * options that several commands share.  The contract of a handler is in call.h.
 *
 * Functions that return bool have put the error into the output when they return false.
 */
#ifndef OORT_COMMANDS_HANDLER_H
#define OORT_COMMANDS_HANDLER_H

#include "commands/call.h"

/* Values above this many bytes are sent from where they lie, not copied. */
#define OORT_PIN_BYTES 65536u

/* A failed command: the text with its code.  Returns OORT_OK, which is the handler's status: the reply
 * is complete. */
int32_t call_error(struct oort_call *call, const char *text);
/* "ERR wrong number of arguments for 'name' command", "ERR invalid expire time in 'name'
 * command". */
int32_t call_wrong_arguments(struct oort_call *call);
int32_t call_invalid_expire(struct oort_call *call);
/* "ERR Unsupported option <argv[at]>". */
int32_t call_unsupported_option(struct oort_call *call, uint32_t at);
/* argv[at] as an integer. */
bool call_integer(struct oort_call *call, uint32_t at, int64_t *out);
/* Whether an argument is this word, given in lower case, in any case. */
bool argument_is(const oort_bytes *argument, const char *word);
/* Whether a value of size + more bytes fits. */
bool call_fits(struct oort_call *call, uint64_t size, uint64_t more);

/* oort_read of a read command: counts the hit or miss. */
int32_t call_read(struct oort_call *call, const oort_key *key, oort_value *out);
/* oort_look, likewise. */
int32_t call_look(struct oort_call *call, const oort_key *key, oort_value *out);
/* oort_write of one part. */
int32_t call_write(struct oort_call *call, const oort_key *key, oort_bytes value,
                   int64_t expiry_ms);
/* oort_remove of a key whose record an earlier call has answered from memory.  If the record has
 * left memory since, it is fetched here: the removals before this one cannot be taken back. */
int32_t call_remove_read(struct oort_call *call, const oort_key *key);
/* The value as a bulk: copied, or sent from where it lies when it is large. */
void call_reply_value(struct oort_call *call, oort_value *value);
/* The value, or null when status says that it is missing; nothing for any other status. */
void call_reply_found(struct oort_call *call, int32_t status, oort_value *value);

/* ---- expiry options (EX, PX, EXAT, PXAT) -------------------------------- */

enum expire_unit { EXPIRE_NONE = 0, EXPIRE_EX, EXPIRE_PX, EXPIRE_EXAT, EXPIRE_PXAT };

/* The point in time argv[at] means, in milliseconds. */
bool call_expire_time(struct oort_call *call, enum expire_unit unit, uint32_t at, int64_t *out);

/* What may follow SET key value and GETEX key. */
struct set_options {
    enum expire_unit unit;
    uint32_t expire_at;      /* argv index of the time */
    bool not_exists, exists; /* NX, XX */
    bool get, keep_ttl, persist;
};
bool call_set_options(struct oort_call *call, struct set_options *options);
bool call_getex_options(struct oort_call *call, struct set_options *options);

#endif
