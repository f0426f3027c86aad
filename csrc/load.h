/*
 * load.h: the public face of the load generator, the engine of oort-bench.
 *
 * Threads of epoll connections send GET and SET to any Redis-protocol server and check every
 * reply.  A value is derived from (seed, key number, version); values of 16 bytes and more carry
 * their version in front.  Key n is prefix + 12 digits.
 *
 * The part between the two "cffi" marks is what Python sees, as in oort.h.
 */
#ifndef OORT_LOAD_H
#define OORT_LOAD_H

#include "oort.h"

/* cffi: begin */

enum oort_load_keys { OORT_LOAD_UNIFORM = 0, OORT_LOAD_ZIPF = 1, OORT_LOAD_SEQUENTIAL = 2 };
enum oort_load_op { OORT_LOAD_GET = 0, OORT_LOAD_SET = 1, OORT_LOAD_ANY = 2 };
#define OORT_LOAD_ERROR_TEXTS 8

typedef struct oort_load_config {
    const char *host;     /* name or address */
    const char *username; /* NULL: AUTH with the password alone */
    const char *password; /* NULL: no AUTH */
    const char *prefix;   /* of every key */
    uint16_t port;
    uint16_t database;
    uint32_t threads;       /* 1 .. clients */
    uint32_t clients;       /* connections, all threads together */
    uint32_t pipeline;      /* requests in flight a connection */
    uint32_t reads, writes; /* shares of GET and SET */
    int32_t keys;           /* an oort_load_keys */
    double zipf_exponent;   /* > 0 */
    double rate;            /* requests a second, open loop; 0: closed loop */
    uint64_t keyspace;
    uint64_t value_min, value_max; /* bytes */
    uint64_t seed;
    uint64_t requests;    /* measured; 0: until the time is over */
    uint64_t duration_us; /* measured; 0: until the requests are done */
    uint64_t warmup_us;   /* checked, but not measured */
    uint64_t timeout_us;  /* give up when no reply came for so long */
} oort_load_config;

typedef struct oort_load_result {
    uint64_t gets, sets;    /* measured and answered, whatever the answer */
    uint64_t hits, missing; /* these and the errors below count the warm-up too */
    uint64_t wrong_value;   /* right size, other bytes */
    uint64_t wrong_size;    /* truncated, or too long */
    uint64_t error_replies; /* the server answered -ERR ... */
    uint64_t unexpected;    /* a reply of another type than the request's */
    uint64_t lost;          /* connections closed or broken by the server */
    uint64_t unanswered;    /* requests in flight when their connection or the run ended */
    uint64_t unsent;        /* open loop: due before the end and never sent */
    uint64_t bytes_in, bytes_out;
    uint64_t elapsed_us;  /* of the measured part */
    uint64_t cpu_us;      /* of the threads, user + system, warm-up included */
    uint64_t answered;    /* all replies, warm-up included */
    int32_t timed_out;    /* 1: given up */
    int32_t failed;       /* 1: ended early, out of memory or descriptors */
    uint32_t error_texts; /* how many different error replies are kept below */
    char error_text[8][128];
} oort_load_result;

typedef struct oort_load oort_load;
/* Connect everything, then start the threads.  NULL: error says why. */
oort_load *oort_load_start(const oort_load_config *config, oort_error *error);
/* Measured replies so far; thread safe. */
uint64_t oort_load_answered(oort_load *load);
/* Ask the threads to end early; thread safe. */
void oort_load_stop(oort_load *load);
/* Wait at most so long: 1 when every thread has ended. */
int32_t oort_load_wait(oort_load *load, uint32_t timeout_ms);
/* After oort_load_wait has said 1. */
void oort_load_get_result(oort_load *load, oort_load_result *out);
/* Latency in ns below which this share (0 .. 1) of the requests was answered, to 0.1 %;
 * 0 when there was none. */
uint64_t oort_load_quantile_ns(oort_load *load, int32_t op, double share);
double oort_load_mean_ns(oort_load *load, int32_t op);
/* Ends the threads if need be. */
void oort_load_close(oort_load *load);

/* cffi: end */

#endif
