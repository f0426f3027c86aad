/*
 * link.h: one connection of the load generator, without its socket.
 *
 * load_link_request appends a request to the bytes to send.  load_link_feed takes bytes as they
 * arrive, in pieces of any size, and checks every reply against its request.  The results are
 * counted in the tally, which all connections of a thread share.  Connections share nothing else.
 *
 * Limits: a reply line (everything except the bytes of a bulk string) has at most LOAD_LINE_CAP
 * bytes. Replies are simple strings, errors, integers, nulls and bulk strings, because GET and SET
 * have no other replies.
 */
#ifndef OORT_LOAD_LINK_H
#define OORT_LOAD_LINK_H

#include "load/data.h"

#define LOAD_LINE_CAP 1024
#define LOAD_PREFIX_CAP 256
#define LOAD_KEY_DIGITS 12

/* The results of one thread, and the constant parts of its requests. */
struct load_tally {
    oort_load_result result;
    struct load_histogram latency[2]; /* by oort_load_op */
    struct load_values values;
    uint64_t measured_from_ns; /* requests that began earlier belong to the warm-up */
    uint64_t last_reply_ns;    /* of the measured replies */
    uint64_t in_flight;
    char get_head[LOAD_PREFIX_CAP + 64]; /* all bytes before the key's digits */
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

    uint8_t *out; /* out_sent to out_size are still to be sent */
    uint64_t out_size, out_sent, out_capacity;

    struct load_request *requests; /* ring of the requests in flight */
    uint32_t pipeline, first, in_flight;

    enum load_link_state state;
    uint64_t value_size, value_offset; /* bytes announced, and bytes received so far */
    struct load_value expected;
    bool value_ok;
    uint8_t version[8]; /* the first bytes of the value, until all 8 are there */
    uint32_t ending;    /* received bytes of the CRLF after a value */
    uint32_t line_size; /* of an unfinished reply line */
    uint8_t line[LOAD_LINE_CAP];
};

int32_t load_tally_init(struct load_tally *tally, const oort_load_config *config);

int32_t load_link_init(struct load_link *link, struct load_tally *tally, uint32_t pipeline);
void load_link_clear(struct load_link *link);
/* The caller makes sure that in_flight < pipeline. */
int32_t load_link_request(struct load_link *link, uint8_t op, uint64_t key, uint64_t version,
                          uint64_t start_ns);
/* False: the bytes are no reply to the request, so the connection cannot be used any more. */
bool load_link_feed(struct load_link *link, const uint8_t *data, uint64_t size, uint64_t now_ns);

struct addrinfo;
/* Connects to the first of the addresses that answers, and sends AUTH and SELECT.  Returns the
 * socket or -1. */
int load_connect(const oort_load_config *config, const struct addrinfo *address, oort_error *error);

#endif
