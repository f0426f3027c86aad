/*
 * keyspace.h: what a hot command does with the store, in Redis's words.
 *
 * A handler opens its keys (worked out and locked), reads and writes them, and closes with the last
 * status: closing unlocks and turns the status into what oort_execute returns, with an error reply
 * where it is one. Nothing is appended before the last call that can answer OORT_COLD, or it is
 * rolled back by keyspace_undo.
 */
#ifndef OORT_KEYSPACE_H
#define OORT_KEYSPACE_H

#include "commands/commands.h"

/* A failed command: the text with its code. Returns OORT_CALL_DONE. */
int32_t call_error(struct oort_call *call, const char *text);
/* "ERR wrong number of arguments for 'name' command", "ERR invalid expire time in 'name'
 * command". */
int32_t call_wrong_arguments(struct oort_call *call);
int32_t call_invalid_expire(struct oort_call *call);
/* "ERR Unsupported option <argv[at]>". */
int32_t call_unsupported_option(struct oort_call *call, uint32_t at);
/* argv[at] as an integer. false: the error is in the output. */
bool call_integer(struct oort_call *call, uint32_t at, int64_t *out);
/* Whether an argument is this word, given in lower case, in any case. */
bool argument_is(const oort_bytes *argument, const char *word);
/* Whether a value of size + more bytes fits; false: the error is in the output (keys stay open). */
bool call_fits(struct oort_call *call, uint64_t size, uint64_t more);

/* argv[1] worked out and locked. false: the error is in the output, close nothing. */
bool keyspace_open(struct oort_call *call, oort_key *key);
/* argv[1], argv[1 + step], ... likewise. keys has room for KEYSPACE_STACK_KEYS and is used where
 * that is enough. NULL: the error is in the output, close nothing. */
#define KEYSPACE_STACK_KEYS 64u
oort_key *keyspace_open_many(struct oort_call *call, uint32_t step, oort_key *stack,
                             uint32_t *count);
/* Unlock, and answer for the status of the last store call. */
int32_t keyspace_close(struct oort_call *call, int32_t status);
int32_t keyspace_close_many(struct oort_call *call, oort_key *keys, const oort_key *stack,
                            int32_t status);
/* Take back what was appended since the mark unless the status is OORT_OK or OORT_MISSING. */
void keyspace_undo(struct oort_call *call, struct output_mark mark, int32_t status);

/* oort_read of a read command: counts the hit or miss. */
int32_t keyspace_lookup(struct oort_call *call, const oort_key *key, oort_value *out);
/* oort_look, likewise. */
int32_t keyspace_look(struct oort_call *call, const oort_key *key, oort_value *out);
/* oort_write of one part. */
int32_t keyspace_write(struct oort_call *call, const oort_key *key, oort_bytes value,
                       int64_t expiry_ms);
/* oort_remove when the key's first lookup has already been answered from memory: should the record
 * have left memory meanwhile, it is fetched here. */
int32_t keyspace_remove_warm(struct oort_call *call, const oort_key *key);
/* The value as a bulk, copied, or from where it lies when it is large. */
void keyspace_reply_value(struct oort_call *call, oort_value *value);

/* ---- expiry options (EX, PX, EXAT, PXAT) -------------------------------- */

enum expire_unit { EXPIRE_NONE = 0, EXPIRE_EX, EXPIRE_PX, EXPIRE_EXAT, EXPIRE_PXAT };

/* The point in time argv[at] means, in milliseconds. false: the error is in the output. */
bool call_expire_time(struct oort_call *call, enum expire_unit unit, uint32_t at, int64_t *out);

/* What may follow SET key value and GETEX key. */
struct set_options {
    enum expire_unit unit;
    uint32_t expire_at;      /* argv index of the time */
    bool not_exists, exists; /* NX, XX */
    bool get, keep_ttl, persist;
};
/* false: the syntax error is in the output. */
bool call_set_options(struct oort_call *call, struct set_options *options);
bool call_getex_options(struct oort_call *call, struct set_options *options);

#endif
