/*
 * link.h: one connection of the load generator, without its socket.
 *
 * load_link_request appends a request to the bytes to send; load_link_feed
 * takes bytes as they arrive, in pieces of any size, and checks every reply
 * against the request it answers.  What it finds is counted in the tally that
 * all connections of one thread share; nothing else is shared.
 *
 * Limits: a reply line (all but the bytes of a bulk string) is at most
 * LOAD_LINE_CAP long; replies are simple strings, errors, integers, nulls and
 * bulk strings, for no other type answers GET or SET.
 */
#ifndef OORT_LOAD_LINK_H
#define OORT_LOAD_LINK_H

#include "load/data.h"

#define LOAD_LINE_CAP 1024
#define LOAD_PREFIX_CAP 256
#define LOAD_KEY_DIGITS 12

/* What one thread has found, and how it writes its requests. */
struct load_tally {
    oort_load_result result;
    struct load_histogram latency[2]; /* by oort_load_op */
    struct load_values values;
    uint64_t measured_from_ns; /* requests that began earlier are warm-up */
    uint64_t last_reply_ns;    /* of the measured ones */
    uint64_t in_flight;
    char get_head[LOAD_PREFIX_CAP + 64]; /* everything before the key's digits */
    char set_head[LOAD_PREFIX_CAP + 64];
    uint32_t get_head_size, set_head_size;
};

struct load_request {
    uint64_t key;
    uint64_t start_ns;
    uint8_t op; /* an oort_load_op */
};

enum load_link_state { LOAD_AT_LINE, LOAD_IN_VALUE, LOAD_AFTER_VALUE };

struct load_link {
    struct load_tally *tally;

    uint8_t *out; /* bytes to send: out_sent .. out_size */
    uint64_t out_size, out_sent, out_capacity;

    struct load_request *requests; /* ring of those in flight */
    uint32_t pipeline, first, in_flight;

    enum load_link_state state;
    uint64_t value_size, value_offset; /* announced, and taken so far */
    struct load_value expected;
    bool value_ok;
    uint8_t version[8]; /* the value's first bytes, until they are complete */
    uint32_t ending;    /* bytes of the CRLF after a value seen */
    uint32_t line_size; /* a reply line that has not ended yet */
    uint8_t line[LOAD_LINE_CAP];
};

int32_t load_tally_init(struct load_tally *tally, const oort_load_config *config);

int32_t load_link_init(struct load_link *link, struct load_tally *tally, uint32_t pipeline);
void load_link_clear(struct load_link *link);
/* There must be room: in_flight < pipeline. */
int32_t load_link_request(struct load_link *link, uint8_t op, uint64_t key, uint64_t version,
                          uint64_t start_ns);
/* False: what came is no answer to what was asked, the connection is of no more use. */
bool load_link_feed(struct load_link *link, const uint8_t *data, uint64_t size, uint64_t now_ns);

struct addrinfo;
/* A socket connected to the first of these addresses that answers, past AUTH and SELECT; or -1. */
int load_connect(const oort_load_config *config, const struct addrinfo *address, oort_error *error);

#endif
