/*
 * load.h: the public interface of the load generator, the engine of oort-bench.
 *
 * Threads of epoll connections send GET and SET to any server that speaks the Redis protocol, and
 * check every reply.  A value is derived from (seed, key number, version).  A value of at least 16
 * bytes begins with its version.  Key n is the prefix and 12 digits.
 *
 * Python sees the part between the two "cffi" marks, as in oort.h.
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
    uint32_t threads;       /* 1 to clients */
    uint32_t clients;       /* connections of all threads together */
    uint32_t pipeline;      /* requests in flight on a connection */
    uint32_t reads, writes; /* shares of GET and SET */
    int32_t keys;           /* an oort_load_keys */
    double zipf_exponent;   /* > 0 */
    double rate;            /* requests a second, open loop; 0: closed loop */
    uint64_t keyspace;
    uint64_t value_min, value_max; /* bytes */
    uint64_t seed;
    uint64_t requests;    /* measured; 0: until the time has passed */
    uint64_t duration_us; /* measured; 0: until the requests are done */
    uint64_t warmup_us;   /* checked, but not measured */
    uint64_t timeout_us;  /* the run ends if no reply came for so long */
} oort_load_config;

typedef struct oort_load_result {
    uint64_t gets, sets;    /* measured and answered, whatever the reply */
    uint64_t hits, missing; /* these and the counts below include the warm-up */
    uint64_t wrong_value;   /* right size, wrong bytes */
    uint64_t wrong_size;    /* too short or too long */
    uint64_t error_replies; /* error replies of the server */
    uint64_t unexpected;    /* the reply has a type that the request cannot get */
    uint64_t lost;          /* connections that the server closed or that broke */
    uint64_t unanswered;    /* requests in flight at the end of their connection or of the run */
    uint64_t unsent;        /* open loop: due before the end but never sent */
    uint64_t bytes_in, bytes_out;
    uint64_t elapsed_us;  /* of the measured part */
    uint64_t cpu_us;      /* of the threads, user and system time, warm-up included */
    uint64_t answered;    /* all replies, warm-up included */
    int32_t timed_out;    /* 1: no reply came for too long */
    int32_t failed;       /* 1: ended early for lack of memory or descriptors */
    uint32_t error_texts; /* number of different error replies kept below */
    char error_text[8][128];
} oort_load_result;

typedef struct oort_load oort_load;
/* Opens all connections, then starts the threads.  NULL: error gives the cause. */
oort_load *oort_load_start(const oort_load_config *config, oort_error *error);
/* The number of measured replies so far.  Thread safe. */
uint64_t oort_load_answered(oort_load *load);
/* Asks the threads to end early.  Thread safe. */
void oort_load_stop(oort_load *load);
/* Waits at most timeout_ms.  1: every thread has ended. */
int32_t oort_load_wait(oort_load *load, uint32_t timeout_ms);
/* Call after oort_load_wait has returned 1. */
void oort_load_get_result(oort_load *load, oort_load_result *out);
/* This share (0 to 1) of the requests had at most this latency in ns, with an error of at most 0.1
 * %.  0 if there were no requests. */
uint64_t oort_load_quantile_ns(oort_load *load, int32_t op, double share);
double oort_load_mean_ns(oort_load *load, int32_t op);
/* Ends the threads if they still run. */
void oort_load_close(oort_load *load);

/* cffi: end */

#endif
