/*
 * resp.c: the request parser.  Its contract is in resp.h.
 *
 * A request is a multibulk ("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") or one inline line.  The state of a
 * request in progress is a few integers: where the line or argument being read begins, how far the
 * search for its end has come, how many arguments are still missing.
 */
#include "protocol/resp.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define ARGV_FIRST 16u
/* An argv with more places is freed before the next request. */
#define ARGV_KEEP 1024u

void resp_parser_init(struct resp_parser *parser)
{
    memset(parser, 0, sizeof(*parser));
    parser->bulk = -1;
}

void resp_parser_free(struct resp_parser *parser)
{
    free(parser->argv);
    resp_parser_init(parser);
}

bool resp_parse_integer(const uint8_t *data, uint64_t size, int64_t *out)
{
    if (size == 0 || size > 20) {
        return false;
    }
    bool negative = data[0] == '-';
    uint64_t at = negative ? 1 : 0;
    if (at == size) {
        return false;
    }
    if (data[at] == '0') {
        *out = 0;
        return size == 1;
    }
    uint64_t value = 0;
    for (; at < size; at++) {
        uint8_t digit = (uint8_t)(data[at] - '0');
        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (negative) {
        if (value > (uint64_t)INT64_MAX + 1) {
            return false;
        }
        *out = (int64_t)(0 - value);
    } else {
        if (value > INT64_MAX) {
            return false;
        }
        *out = (int64_t)value;
    }
    return true;
}

static int fail(struct resp_parser *parser, enum resp_error error)
{
    parser->error = (uint8_t)error;
    return RESP_ERROR;
}

/* Find the byte that ends the line at parser->line, from where the last call stopped.
 * RESP_PARTIAL: the byte has not arrived; RESP_ERROR: the line is longer than its cap. */
static int find_line_end(struct resp_parser *parser, const uint8_t *data, uint64_t size,
                         uint8_t end, enum resp_error too_long, uint64_t *at)
{
    uint64_t last = parser->line + RESP_LINE_CAP;
    uint64_t stop = size > last ? last + 1 : size;
    if (!parser->endless) {
        for (uint64_t i = parser->scanned; i < stop; i++) {
            if (data[i] == end) {
                parser->scanned = i;
                *at = i;
                return RESP_REQUEST;
            }
            if (data[i] == 0) {
                parser->endless = true;
                break;
            }
        }
        parser->scanned = stop;
    }
    if (size > last) {
        return fail(parser, too_long);
    }
    parser->wanted = 1;
    return RESP_PARTIAL;
}

static bool add_argument(struct resp_parser *parser, const uint8_t *data, uint64_t size)
{
    if (parser->argc == parser->argv_capacity) {
        uint32_t capacity = parser->argv_capacity == 0 ? ARGV_FIRST : parser->argv_capacity * 2;
        oort_bytes *argv = capacity <= parser->argv_capacity
                               ? NULL
                               : realloc(parser->argv, (size_t)capacity * sizeof(*argv));
        if (argv == NULL) {
            return false;
        }
        parser->argv = argv;
        parser->argv_capacity = capacity;
    }
    parser->argv[parser->argc].data = data;
    parser->argv[parser->argc].size = size;
    parser->argc++;
    return true;
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Does this byte end a word that is not quoted?  More bytes than these may stand between words. */
static bool ends_word(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* The byte that an escape of a double-quoted word means.  Moves *at past the escape. */
static uint8_t unescape(const uint8_t *line, uint64_t size, uint64_t *at)
{
    uint64_t i = *at + 1;
    if (line[i] == 'x' && i + 2 < size) {
        int high = hex_digit(line[i + 1]);
        int low = hex_digit(line[i + 2]);
        if (high >= 0 && low >= 0) {
            *at = i + 3;
            return (uint8_t)(high * 16 + low);
        }
    }
    *at = i + 1;
    switch (line[i]) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'b':
        return '\b';
    case 'a':
        return '\a';
    default:
        return line[i];
    }
}

/* Read the word at *at and unescape it in place.  Moves *at past the word; *written is its size.  A
 * quote may open anywhere in a word.  A space or the line's end must follow the closing quote. */
static bool split_word(uint8_t *line, uint64_t size, uint64_t *at, uint64_t *written)
{
    uint8_t *out = line + *at;
    uint64_t i = *at;
    uint64_t n = 0;
    uint8_t quote = 0;
    while (i < size) {
        uint8_t byte = line[i];
        if (quote == 0) {
            if (ends_word(byte)) {
                break;
            }
            if (byte == '"' || byte == '\'') {
                quote = byte;
            } else {
                out[n++] = byte;
            }
            i++;
        } else if (byte == quote) {
            if (i + 1 < size && !is_space(line[i + 1])) {
                return false;
            }
            quote = 0;
            i++;
            break;
        } else if (quote == '"' && byte == '\\' && i + 1 < size) {
            out[n++] = unescape(line, size, &i);
        } else if (quote == '\'' && byte == '\\' && i + 1 < size && line[i + 1] == '\'') {
            out[n++] = '\'';
            i += 2;
        } else {
            out[n++] = byte;
            i++;
        }
    }
    *at = i;
    *written = n;
    return quote == 0;
}

static int parse_inline(struct resp_parser *parser, uint8_t *data, uint64_t size)
{
    uint64_t newline;
    int found = find_line_end(parser, data, size, '\n', RESP_ERROR_INLINE_LINE, &newline);
    if (found != RESP_REQUEST) {
        return found;
    }
    uint64_t end = newline > 0 && data[newline - 1] == '\r' ? newline - 1 : newline;
    uint64_t at = 0;
    for (;;) {
        while (at < end && is_space(data[at])) {
            at++;
        }
        if (at == end) {
            break;
        }
        const uint8_t *word = data + at;
        uint64_t written;
        if (!split_word(data, end, &at, &written)) {
            return fail(parser, RESP_ERROR_INLINE_QUOTES);
        }
        if (!add_argument(parser, word, written)) {
            return RESP_NOMEM;
        }
    }
    parser->consumed = newline + 1;
    return RESP_REQUEST;
}

/* Wait until the line at parser->line has arrived up to its CR and one byte more.  RESP_REQUEST:
 * *cr is the position of the CR; otherwise the result for resp_parse. */
static int find_header(struct resp_parser *parser, const uint8_t *data, uint64_t size,
                       enum resp_error too_long, uint64_t *cr)
{
    int found = find_line_end(parser, data, size, '\r', too_long, cr);
    if (found == RESP_REQUEST && *cr + 2 > size) {
        parser->wanted = 1;
        return RESP_PARTIAL;
    }
    return found;
}

/* Parse a usual header at once: '$' or '*', one to five digits, CR and a byte, all of it arrived.
 * false: any other header, which find_header takes. */
static inline bool short_header(const uint8_t *data, uint64_t size, uint64_t line, uint8_t type,
                                uint64_t *value, uint64_t *next)
{
    if (size < line + 9 || data[line] != type) {
        return false;
    }
    const uint8_t *at = data + line + 1;
    uint32_t number = (uint32_t)*at - '0';
    if (number > 9 || (number == 0 && at[1] != '\r')) {
        return false;
    }
    for (at++; at < data + line + 7; at++) {
        uint32_t digit = (uint32_t)*at - '0';
        if (digit > 9) {
            if (*at != '\r') {
                return false;
            }
            *value = number;
            *next = (uint64_t)(at - data) + 2;
            return true;
        }
        number = number * 10 + digit;
    }
    return false;
}

static int parse_multibulk_header(struct resp_parser *parser, const uint8_t *data, uint64_t size,
                                  const struct resp_limits *limits)
{
    uint64_t value;
    uint64_t next;
    if (parser->scanned == 0 && short_header(data, size, 0, '*', &value, &next) &&
        value <= RESP_UNAUTHENTICATED_ARGS) {
        parser->line = parser->scanned = next;
        parser->remaining = (uint32_t)value;
        return RESP_REQUEST;
    }
    uint64_t cr;
    int found = find_header(parser, data, size, RESP_ERROR_MULTIBULK_LINE, &cr);
    if (found != RESP_REQUEST) {
        return found;
    }
    int64_t count;
    if (!resp_parse_integer(data + 1, cr - 1, &count) || count > INT_MAX) {
        return fail(parser, RESP_ERROR_MULTIBULK_LENGTH);
    }
    if (count > RESP_UNAUTHENTICATED_ARGS && !limits->authenticated) {
        return fail(parser, RESP_ERROR_MULTIBULK_UNAUTHENTICATED);
    }
    parser->line = parser->scanned = cr + 2;
    parser->remaining = count > 0 ? (uint32_t)count : 0;
    return RESP_REQUEST;
}

static int parse_bulk_header(struct resp_parser *parser, const uint8_t *data, uint64_t size,
                             const struct resp_limits *limits)
{
    uint64_t cr;
    int found = find_header(parser, data, size, RESP_ERROR_BULK_LINE, &cr);
    if (found != RESP_REQUEST) {
        return found;
    }
    const uint8_t *line = data + parser->line;
    if (line[0] != '$') {
        parser->got = line[0];
        return fail(parser, RESP_ERROR_BULK_EXPECTED);
    }
    int64_t length;
    if (!resp_parse_integer(line + 1, cr - parser->line - 1, &length) || length < 0 ||
        (uint64_t)length > limits->bulk_cap) {
        return fail(parser, RESP_ERROR_BULK_LENGTH);
    }
    if (length > RESP_UNAUTHENTICATED_BULK && !limits->authenticated) {
        return fail(parser, RESP_ERROR_BULK_UNAUTHENTICATED);
    }
    parser->line = parser->scanned = cr + 2;
    parser->bulk = length;
    return RESP_REQUEST;
}

static int parse_arguments(struct resp_parser *parser, const uint8_t *data, uint64_t size,
                           const struct resp_limits *limits)
{
    /* Up to this size a short header needs no further check. */
    uint64_t easy = limits->authenticated ? limits->bulk_cap : RESP_UNAUTHENTICATED_BULK;
    if (easy > limits->bulk_cap) {
        easy = limits->bulk_cap;
    }
    while (parser->remaining > 0) {
        if (parser->bulk < 0) {
            uint64_t value;
            uint64_t next;
            if (parser->scanned == parser->line &&
                short_header(data, size, parser->line, '$', &value, &next) && value <= easy) {
                parser->line = parser->scanned = next;
                parser->bulk = (int64_t)value;
            } else {
                int found = parse_bulk_header(parser, data, size, limits);
                if (found != RESP_REQUEST) {
                    return found;
                }
            }
        }
        uint64_t arrived = size - parser->line;
        uint64_t needed = (uint64_t)parser->bulk + 2;
        if (arrived < needed) {
            parser->wanted = needed - arrived;
            return RESP_PARTIAL;
        }
        if (!add_argument(parser, data + parser->line, (uint64_t)parser->bulk)) {
            return RESP_NOMEM;
        }
        parser->line += needed;
        parser->scanned = parser->line;
        parser->bulk = -1;
        parser->remaining--;
    }
    parser->consumed = parser->line;
    return RESP_REQUEST;
}

/* The buffer has moved, and the arguments in it with it. */
static void rebase(struct resp_parser *parser, const uint8_t *data)
{
    uintptr_t from = (uintptr_t)parser->base;
    for (uint32_t i = 0; i < parser->argc; i++) {
        parser->argv[i].data = data + ((uintptr_t)parser->argv[i].data - from);
    }
}

static void start_request(struct resp_parser *parser)
{
    if (parser->argv_capacity > ARGV_KEEP) {
        free(parser->argv);
        parser->argv = NULL;
        parser->argv_capacity = 0;
    }
    parser->argc = 0;
    parser->line = parser->scanned = 0;
    parser->remaining = 0;
    parser->bulk = -1;
    parser->endless = false;
    parser->in_request = true;
}

int resp_parse(struct resp_parser *parser, uint8_t *data, uint64_t size,
               const struct resp_limits *limits)
{
    if (parser->error != RESP_ERROR_NONE) {
        return RESP_ERROR;
    }
    if (size == 0) {
        parser->wanted = 1;
        return RESP_PARTIAL;
    }
    OORT_ASSERT(!parser->in_request || parser->line <= size,
                "the bytes of a request in progress stay in the buffer");
    if (!parser->in_request) {
        start_request(parser);
    } else if (parser->base != data && parser->argc > 0) {
        rebase(parser, data);
    }
    parser->base = data;

    int result;
    if (data[0] != '*') {
        result = parse_inline(parser, data, size);
    } else {
        result = RESP_REQUEST;
        if (parser->line == 0) {
            result = parse_multibulk_header(parser, data, size, limits);
        }
        if (result == RESP_REQUEST) {
            result = parse_arguments(parser, data, size, limits);
        }
    }
    if (result == RESP_REQUEST) {
        OORT_ASSERT(parser->consumed > 0 && parser->consumed <= size,
                    "a request lies within the bytes that have arrived");
        parser->in_request = false;
    }
    return result;
}

void resp_parser_error(const struct resp_parser *parser, char *text)
{
    static const char *const texts[] = {
        [RESP_ERROR_NONE] = "no error",
        [RESP_ERROR_MULTIBULK_LENGTH] = "invalid multibulk length",
        [RESP_ERROR_MULTIBULK_UNAUTHENTICATED] = "unauthenticated multibulk length",
        [RESP_ERROR_MULTIBULK_LINE] = "too big mbulk count string",
        [RESP_ERROR_BULK_LENGTH] = "invalid bulk length",
        [RESP_ERROR_BULK_UNAUTHENTICATED] = "unauthenticated bulk length",
        [RESP_ERROR_BULK_LINE] = "too big bulk count string",
        [RESP_ERROR_BULK_EXPECTED] = NULL,
        [RESP_ERROR_INLINE_LINE] = "too big inline request",
        [RESP_ERROR_INLINE_QUOTES] = "unbalanced quotes in request",
    };
    if (parser->error == RESP_ERROR_BULK_EXPECTED) {
        snprintf(text, RESP_ERROR_BYTES, "Protocol error: expected '$', got '%c'", parser->got);
    } else {
        snprintf(text, RESP_ERROR_BYTES, "Protocol error: %s", texts[parser->error]);
    }
}
