/*
 * resp.h: RESP as bytes: a resumable request parser and a reply writer.
 *
 * It knows no sockets, no store calls and no commands.
 *
 * Contract of the parser
 *  - The caller owns one contiguous, writable buffer.  It always passes the bytes from the first
 *    byte of the request in progress to the last byte that has arrived.  The buffer may have moved
 *    or grown since the last call, but those bytes must still be there, in order.
 *  - No byte is scanned twice, whatever the pieces that the bytes arrive in.
 *  - argv points into the buffer and is valid until the buffer changes.  Quoted words of an inline
 *    request are unescaped in place.
 *  - Limits and error texts are those of Redis 7.0.  Like Redis, the parser ignores the byte after
 *    a header's CR and the two bytes after an argument, and a line that contains a NUL never ends.
 *  - The memory of argv grows as arguments arrive, never because they are announced.
 */
#ifndef OORT_RESP_H
#define OORT_RESP_H

#include "oort.h"

#define RESP_LINE_CAP 65536u            /* inline request or header line without its end, bytes */
#define RESP_UNAUTHENTICATED_ARGS 10    /* arguments before AUTH */
#define RESP_UNAUTHENTICATED_BULK 16384 /* bytes an argument before AUTH */
#define RESP_ERROR_BYTES 64             /* enough for every protocol error and its NUL */

enum resp_result {
    RESP_PARTIAL = 0, /* at least parser->wanted more bytes are needed */
    RESP_REQUEST = 1, /* argv, argc; drop parser->consumed bytes; argc 0: nothing to execute */
    RESP_ERROR = -1,  /* resp_parser_error has the text; the connection must be closed */
    RESP_NOMEM = -2   /* argv could not grow; the connection must be closed */
};

enum resp_error {
    RESP_ERROR_NONE = 0,
    RESP_ERROR_MULTIBULK_LENGTH,
    RESP_ERROR_MULTIBULK_UNAUTHENTICATED,
    RESP_ERROR_MULTIBULK_LINE,
    RESP_ERROR_BULK_LENGTH,
    RESP_ERROR_BULK_UNAUTHENTICATED,
    RESP_ERROR_BULK_LINE,
    RESP_ERROR_BULK_EXPECTED,
    RESP_ERROR_INLINE_LINE,
    RESP_ERROR_INLINE_QUOTES
};

struct resp_limits {
    uint64_t bulk_cap;  /* longest argument, bytes (proto-max-bulk-len) */
    bool authenticated; /* false: the small limits above */
};

/* Offsets count from the first byte of the request in progress. */
struct resp_parser {
    oort_bytes *argv;
    uint64_t consumed;   /* after RESP_REQUEST: bytes of this request */
    uint64_t wanted;     /* after RESP_PARTIAL: bytes that are announced and have not arrived */
    const uint8_t *base; /* where the buffer was when argv was filled */
    uint64_t line;       /* first byte of the line or argument being parsed */
    uint64_t scanned;    /* the line does not end before this byte */
    int64_t bulk;        /* size of the argument being read, -1: its header is next */
    uint32_t argc;
    uint32_t argv_capacity;
    uint32_t remaining; /* arguments still to come; 0: no multibulk header yet */
    uint8_t error;      /* a resp_error */
    uint8_t got;        /* RESP_ERROR_BULK_EXPECTED: the byte in the place of the '$' */
    bool in_request;    /* part of the request has been parsed */
    bool endless;       /* the line contains a NUL, so it never ends */
};

void resp_parser_init(struct resp_parser *parser);
void resp_parser_free(struct resp_parser *parser);
/* One step, see resp_result.  After RESP_REQUEST the next call starts at data + consumed. */
int resp_parse(struct resp_parser *parser, uint8_t *data, uint64_t size,
               const struct resp_limits *limits);
/* After RESP_ERROR: "Protocol error: ...", without the error code.  text has RESP_ERROR_BYTES. */
void resp_parser_error(const struct resp_parser *parser, char *text);

/* A signed 64-bit number as Redis accepts it: no spaces, no plus sign, no leading zeros. */
bool resp_parse_integer(const uint8_t *data, uint64_t size, int64_t *out);

/* ---- replies ------------------------------------------------------------ */

/* Bytes that an output refers to instead of copying them. */
struct pinned_bytes {
    const uint8_t *data;
    uint64_t size;
    /* Called once: after the last byte has been sent, or when the bytes are dropped unsent. */
    void (*release)(void *owner, void *pin);
    void *owner, *pin;
};

/* Pinned bytes are sent after the first `offset` bytes of the output's data. */
struct output_pin {
    uint64_t offset;
    struct pinned_bytes bytes; /* release is NULL once it has been called */
    bool is_value;             /* see output_append_pinned */
};

/* Bytes to be sent.  A failed allocation is sticky: nothing is appended any more, and the
 * connection must be closed.  Zero bytes are a valid empty output.
 * The order is: data up to pins[0].offset, pins[0].bytes, data up to pins[1].offset, ...
 * Invariants: size <= capacity; offsets ascend and are at most size; pinned is the sum of the
 * sizes of the pins that have not been released. */
struct oort_output {
    uint8_t *data;
    uint64_t size;
    uint64_t capacity;
    struct output_pin *pins;
    uint64_t pinned;
    uint32_t pin_count;
    uint32_t pin_capacity;
    bool failed;
};

/* A position in an output: output_rollback removes what was appended since. */
struct output_mark {
    uint64_t size;
    uint32_t pin_count;
};

/* Frees the memory.  Every pin must have been released (output_drop_pins). */
void output_free(struct oort_output *output);
/* Release and remove every pin from position `keep` on. */
void output_drop_pins(struct oort_output *output, uint32_t keep);
/* Release one pin and leave it in its place. */
void output_release_pin(struct oort_output *output, struct output_pin *pin);
struct output_mark output_mark(const struct oort_output *output);
void output_rollback(struct oort_output *output, struct output_mark mark);

/* Room for `more` bytes at data + size (NULL: failed).  The caller adds what it has used to size.
 */
uint8_t *output_reserve(struct oort_output *output, uint64_t more);
void output_append(struct oort_output *output, const void *data, uint64_t size);
/* is_value: the bytes are a value of the store, which is there whether it is sent or not;
 * otherwise the output keeps them in memory.  false: memory is short, and the caller still has to
 * release them. */
bool output_append_pinned(struct oort_output *output, const struct pinned_bytes *bytes,
                          bool is_value);
/* Move everything from `from`, of which nothing has been sent, to the end of `output`.  If memory
 * is short, output->failed says so. */
void output_move(struct oort_output *output, struct oort_output *from);

void reply_simple(struct oort_output *output, const char *text);
/* text has its code ("ERR ...") and neither '-' nor CRLF; CR and LF inside become spaces. */
void reply_error(struct oort_output *output, const char *text);
void reply_integer(struct oort_output *output, int64_t value);
void reply_bulk(struct oort_output *output, const void *data, uint64_t size);
/* A bulk string of a value that stays where it lies in the store.  false: memory is short, and the
 * caller still has to release it. */
bool reply_bulk_pinned(struct oort_output *output, const struct pinned_bytes *bytes);
void reply_null(struct oort_output *output, uint8_t protocol);
void reply_null_array(struct oort_output *output, uint8_t protocol);
void reply_array(struct oort_output *output, uint64_t count);
/* count pairs; in RESP2 an array of twice as many elements. */
void reply_map(struct oort_output *output, uint64_t count, uint8_t protocol);
void reply_double(struct oort_output *output, double value, uint8_t protocol);
void reply_bool(struct oort_output *output, bool value, uint8_t protocol);

#endif
