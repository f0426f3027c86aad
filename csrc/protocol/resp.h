/*
 * resp.h: RESP as bytes: a resumable request parser and a reply writer.
 *
 * Knows no sockets, no store calls and no commands.
 *
 * Parser contract
 *  - The caller owns one contiguous, writable buffer. It always passes the bytes from the first
 *    byte of the request in progress to the end of what has arrived; the buffer may have moved or
 *    grown since the last call, but those bytes must still be there, in order.
 *  - No byte is scanned twice, whatever the pieces it arrives in.
 *  - argv points into the buffer and is good until the buffer changes. Quoted words of an inline
 *    request are unescaped in place.
 *  - Limits and error texts are those of Redis 7.0; like Redis, the parser does not look at the
 *    byte after a header's CR, nor at the two bytes after an argument, and a NUL in a line is never
 *    followed by its end.
 *  - argv memory grows as arguments arrive, never on announcement.
 */
#ifndef OORT_RESP_H
#define OORT_RESP_H

#include "oort.h"

#define RESP_LINE_CAP 65536u            /* inline request or header line without its end, bytes */
#define RESP_UNAUTHENTICATED_ARGS 10    /* arguments before AUTH */
#define RESP_UNAUTHENTICATED_BULK 16384 /* bytes an argument before AUTH */
#define RESP_ERROR_BYTES 64             /* enough for every protocol error and its NUL */

enum resp_result {
    RESP_PARTIAL = 0, /* more bytes are needed: at least parser->wanted */
    RESP_REQUEST = 1, /* argv, argc; drop parser->consumed bytes. argc 0: nothing to execute */
    RESP_ERROR = -1,  /* resp_parser_error says what; the connection must be closed */
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
    uint64_t consumed;   /* after RESP_REQUEST: bytes this request took */
    uint64_t wanted;     /* after RESP_PARTIAL: bytes still to come of what is known to come */
    const uint8_t *base; /* where the buffer was when argv was filled */
    uint64_t line;       /* first byte of the line or argument being parsed */
    uint64_t scanned;    /* no line end before it */
    int64_t bulk;        /* size of the argument being read, -1: its header is next */
    uint32_t argc;
    uint32_t argv_capacity;
    uint32_t remaining; /* arguments still to come; 0: no multibulk header yet */
    uint8_t error;      /* a resp_error */
    uint8_t got;        /* the byte RESP_ERROR_BULK_EXPECTED complains of */
    bool in_request;    /* some of the request has been parsed */
    bool endless;       /* a NUL was met: the line cannot end any more */
};

void resp_parser_init(struct resp_parser *parser);
void resp_parser_free(struct resp_parser *parser);
/* One step: see resp_result. After RESP_REQUEST the next call starts at data + consumed. */
int resp_parse(struct resp_parser *parser, uint8_t *data, uint64_t size,
               const struct resp_limits *limits);
/* The text after RESP_ERROR, "Protocol error: ..." without prefix; RESP_ERROR_BYTES of room. */
void resp_parser_error(const struct resp_parser *parser, char *text);

/* A signed 64-bit number exactly as Redis takes it: no spaces, no plus, no leading zeros. */
bool resp_parse_integer(const uint8_t *data, uint64_t size, int64_t *out);

/* ---- replies ------------------------------------------------------------ */

/* Bytes that are sent from where they lie, and how to let go of them. */
struct pinned_bytes {
    const uint8_t *data;
    uint64_t size;
    /* Called once: after the last byte has been sent, or when the reply is dropped. */
    void (*release)(void *owner, void *pin);
    void *owner, *pin;
};

/* Pinned bytes go out after the first `offset` bytes of the output's data. */
struct output_pin {
    uint64_t offset;
    struct pinned_bytes bytes; /* release is NULL once it has been called */
};

/* Replies not yet sent. A failed allocation is sticky: nothing is appended any more and the
 * connection must be closed. Zero bytes are a valid empty output.
 * The whole of it is: data up to pins[0].offset, pins[0].bytes, data up to pins[1].offset, ... */
struct oort_output {
    uint8_t *data;
    uint64_t size;
    uint64_t capacity;
    struct output_pin *pins;
    uint32_t pin_count;
    uint32_t pin_capacity;
    bool failed;
};

/* Where an output stood: output_rollback takes back what was appended since. */
struct output_mark {
    uint64_t size;
    uint32_t pin_count;
};

/* Frees the memory; every pin must have been dropped first (output_drop_pins). */
void output_free(struct oort_output *output);
/* Release every pin from position `keep` on, and forget them. */
void output_drop_pins(struct oort_output *output, uint32_t keep);
/* Release one pin and leave it in its place. */
void output_release_pin(struct output_pin *pin);
struct output_mark output_mark(const struct oort_output *output);
void output_rollback(struct oort_output *output, struct output_mark mark);

/* Room for `more` bytes at data + size (NULL: failed); the caller adds to size what it used. */
uint8_t *output_reserve(struct oort_output *output, uint64_t more);
void output_append(struct oort_output *output, const void *data, uint64_t size);

void reply_simple(struct oort_output *output, const char *text);
/* text with its code ("ERR ..."), without '-' and CRLF; CR and LF in it become spaces. */
void reply_error(struct oort_output *output, const char *text);
void reply_integer(struct oort_output *output, int64_t value);
void reply_bulk(struct oort_output *output, const void *data, uint64_t size);
/* A bulk of pinned bytes. false: memory is short, the caller still has to release them. */
bool reply_bulk_pinned(struct oort_output *output, const struct pinned_bytes *bytes);
void reply_null(struct oort_output *output, uint8_t protocol);
void reply_null_array(struct oort_output *output, uint8_t protocol);
void reply_array(struct oort_output *output, uint64_t count);
/* count pairs; RESP2: an array of twice as many. */
void reply_map(struct oort_output *output, uint64_t count, uint8_t protocol);
void reply_double(struct oort_output *output, double value, uint8_t protocol);
void reply_bool(struct oort_output *output, bool value, uint8_t protocol);

#endif
