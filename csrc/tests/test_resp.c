/*
 * test_resp.c: the parser with valid and malformed bytes, complete and in pieces, in a buffer that
 * moves and is never larger than the bytes that have arrived.  Also the reply writer.
 */
#include "protocol/resp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#define BULK_CAP 536870912u
#define SAID_BYTES 4096

/* The parser's results as text: [argument argument] for a request, the error, or "..." if bytes are
 * missing. */
struct said {
    char text[SAID_BYTES];
    size_t size;
};

static void say(struct said *said, const char *text)
{
    size_t size = strlen(text);
    if (said->size + size < SAID_BYTES) {
        memcpy(said->text + said->size, text, size + 1);
        said->size += size;
    }
}

static void say_request(struct said *said, const struct resp_parser *parser)
{
    say(said, "[");
    for (uint32_t i = 0; i < parser->argc; i++) {
        char piece[32];
        say(said, i > 0 ? " " : "");
        if (parser->argv[i].size > 64) {
            snprintf(piece, sizeof(piece), "<%llu>", (unsigned long long)parser->argv[i].size);
            say(said, piece);
            continue;
        }
        for (uint64_t j = 0; j < parser->argv[i].size; j++) {
            uint8_t byte = parser->argv[i].data[j];
            snprintf(piece, sizeof(piece), byte > 32 && byte < 127 ? "%c" : "<%02x>", byte);
            say(said, piece);
        }
    }
    say(said, "]");
}

/* Parses the input in pieces: `first` bytes, then `each` bytes at a time. */
static int parse_in_pieces(const uint8_t *input, size_t size, bool authenticated, size_t first,
                           size_t each, struct said *said)
{
    struct resp_limits limits = {.bulk_cap = BULK_CAP, .authenticated = authenticated};
    struct resp_parser parser;
    resp_parser_init(&parser);
    uint8_t *buffer = NULL;
    size_t held = 0;
    size_t fed = 0;
    int result = RESP_PARTIAL;
    said->size = 0;
    said->text[0] = 0;
    while (fed < size && result != RESP_ERROR) {
        size_t piece = fed == 0 ? first : each;
        piece = piece > size - fed ? size - fed : piece;
        uint8_t *moved = malloc(held + piece);
        CHECK(moved != NULL);
        if (held > 0) {
            memcpy(moved, buffer, held);
        }
        memcpy(moved + held, input + fed, piece);
        free(buffer);
        buffer = moved;
        held += piece;
        fed += piece;
        size_t begin = 0;
        while ((result = resp_parse(&parser, buffer + begin, held - begin, &limits)) ==
               RESP_REQUEST) {
            say_request(said, &parser);
            CHECK(parser.consumed > 0 && parser.consumed <= held - begin);
            begin += parser.consumed;
        }
        CHECK(result == RESP_ERROR || (result == RESP_PARTIAL && parser.wanted > 0));
        memmove(buffer, buffer + begin, held - begin);
        held -= begin;
    }
    if (result == RESP_ERROR) {
        char text[RESP_ERROR_BYTES];
        resp_parser_error(&parser, text);
        say(said, text);
    } else if (held > 0) {
        say(said, "...");
    }
    free(buffer);
    resp_parser_free(&parser);
    return 0;
}

static int check_input(const uint8_t *input, size_t size, bool authenticated, const char *expected)
{
    struct said said;
    /* Long inputs are cut at fewer positions, because the interesting positions are near their
     * ends. */
    size_t step = size > 2000 ? 4099 : 1;
    for (size_t first = 1; first <= size + step - 1; first += step) {
        size_t at = first > size ? size : first;
        CHECK(parse_in_pieces(input, size, authenticated, at, size, &said) == 0);
        if (strcmp(said.text, expected) != 0) {
            fprintf(stderr, "%.60s (%zu bytes) cut at %zu: '%s', not '%s'\n", (const char *)input,
                    size, at, said.text, expected);
            return 1;
        }
    }
    size_t each = size > 2000 ? 997 : 1;
    CHECK(parse_in_pieces(input, size, authenticated, each, each, &said) == 0);
    if (strcmp(said.text, expected) != 0) {
        fprintf(stderr, "%.60s (%zu bytes) in pieces of %zu: '%s', not '%s'\n", (const char *)input,
                size, each, said.text, expected);
        return 1;
    }
    return 0;
}

struct row {
    const char *input;
    size_t size;
    const char *expected;
};
#define ROW(input, expected) {input, sizeof(input) - 1, expected}
#define ERROR(text) "Protocol error: " text

static const struct row rows[] = {
    ROW("*1\r\n$4\r\nPING\r\n", "[PING]"),
    ROW("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\n\0b\r\n*1\r\n$0\r\n\r\n",
        "[SET k a<0d><0a><00>b][]"),
    ROW("*2\r\n$3\r\nGET\r\n$3\r\nfo", "..."),
    ROW("*2\r\n", "..."),
    ROW("*", "..."),
    ROW("*0\r\n*-1\r\n*-100\r\n\r\n \r\nPING\r\n", "[][][][][][PING]"),
    ROW("*12\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n$1\r\n7\r\n"
        "$1\r\n8\r\n$1\r\n9\r\n$2\r\n10\r\n$2\r\n11\r\n$2\r\n12\r\n",
        "[1 2 3 4 5 6 7 8 9 10 11 12]"),
    /* The byte after a CR, and the two bytes after an argument, may have any value. */
    ROW("*1\rX$4\rYPINGab*1\r\n$1\r\nx\r\n", "[PING][x]"),
    ROW("*\r\n", ERROR("invalid multibulk length")),
    ROW("*abc\r\n", ERROR("invalid multibulk length")),
    ROW("*01\r\n", ERROR("invalid multibulk length")),
    ROW("*+1\r\n", ERROR("invalid multibulk length")),
    ROW("*-0\r\n", ERROR("invalid multibulk length")),
    ROW("*1 \r\n", ERROR("invalid multibulk length")),
    ROW("*2147483648\r\n", ERROR("invalid multibulk length")),
    ROW("*99999999999999999999999\r\n", ERROR("invalid multibulk length")),
    ROW("*2147483647\r\n$1\r\nx\r\n", "..."),
    ROW("*1\r\n*1\r\n$4\r\nPING\r\n", ERROR("expected '$', got '*'")),
    ROW("*1\r\nfoo\r\n", ERROR("expected '$', got 'f'")),
    ROW("*1\r\nfoo", "..."),
    ROW("*1\r\n$-1\r\n", ERROR("invalid bulk length")),
    ROW("*1\r\n$\r\n", ERROR("invalid bulk length")),
    ROW("*1\r\n$03\r\n", ERROR("invalid bulk length")),
    ROW("*1\r\n$x\r\n", ERROR("invalid bulk length")),
    ROW("*1\r\n$536870913\r\n", ERROR("invalid bulk length")),
    ROW("*1\r\n$9223372036854775808\r\n", ERROR("invalid bulk length")),
    ROW("*1\r\n$536870912\r\nx", "..."),
    ROW("PING\r\nPING\nping x  y\t\r\n", "[PING][PING][ping x y]"),
    ROW("PING", "..."),
    ROW("\"a b\" 'c d' \"\" \"\\x41\\n\\q\\\"\\xzz\\x4\" 'a\\'b\\n'\r\n",
        "[a<20>b c<20>d  A<0a>q\"xzzx4 a'b\\n]"),
    ROW("a\"b c\" \x0b"
        "d\x0b"
        "e\r\n",
        "[ab<20>c d<0b>e]"),
    ROW("ECHO \x80\xff\r\n", "[ECHO <80><ff>]"),
    ROW("ECHO 'a\r\n", ERROR("unbalanced quotes in request")),
    ROW("ECHO \"a\r\n", ERROR("unbalanced quotes in request")),
    ROW("ECHO \"a\\\r\n", ERROR("unbalanced quotes in request")),
    ROW("ECHO \"a\"b\r\n", ERROR("unbalanced quotes in request")),
    ROW("ECHO 'a'b\r\n", ERROR("unbalanced quotes in request")),
    ROW("ECHO 'a\r", "..."),
    ROW("PI\0NG\r\nPING\r\n", "..."),
    ROW("*\0\r\n", "..."),
};

static const struct row before_auth[] = {
    ROW("*10\r\n$1\r\nx\r\n", "..."),
    ROW("*11\r\n", ERROR("unauthenticated multibulk length")),
    ROW("*2147483648\r\n", ERROR("invalid multibulk length")),
    ROW("*1\r\n$16384\r\n", "..."),
    ROW("*1\r\n$16385\r\n", ERROR("unauthenticated bulk length")),
};

static int test_tables(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK(check_input((const uint8_t *)rows[i].input, rows[i].size, true, rows[i].expected) ==
              0);
    }
    for (size_t i = 0; i < sizeof(before_auth) / sizeof(before_auth[0]); i++) {
        CHECK(check_input((const uint8_t *)before_auth[i].input, before_auth[i].size, false,
                          before_auth[i].expected) == 0);
    }
    return 0;
}

/* A line whose end does not come within its limit: the prefix, then `fill` up to a size. */
static int check_long(const char *prefix, char fill, size_t size, const char *suffix,
                      const char *expected)
{
    size_t total = size + strlen(suffix);
    uint8_t *input = malloc(total);
    CHECK(input != NULL);
    memset(input, fill, size);
    memcpy(input, prefix, strlen(prefix));
    memcpy(input + size, suffix, strlen(suffix));
    int failed = check_input(input, total, true, expected);
    free(input);
    return failed;
}

static int test_long_lines(void)
{
    CHECK(check_long("", 'x', RESP_LINE_CAP, "", "...") == 0);
    CHECK(check_long("", 'x', RESP_LINE_CAP, "\n", "[<65536>]") == 0);
    CHECK(check_long("", 'x', RESP_LINE_CAP + 1, "\n", ERROR("too big inline request")) == 0);
    CHECK(check_long("", 0, RESP_LINE_CAP + 1, "", ERROR("too big inline request")) == 0);
    CHECK(check_long("*", '1', RESP_LINE_CAP + 1, "", ERROR("too big mbulk count string")) == 0);
    CHECK(check_long("*1\r\n$", '1', RESP_LINE_CAP + 5, "", ERROR("too big bulk count string")) ==
          0);
    CHECK(check_long("*1\r\n$70000\r\n", 'x', 70012, "\r\n", "[<70000>]") == 0);
    return 0;
}

/* A large argument tells how many bytes are still missing.  A large count alone allocates no
 * memory. */
static int test_announcements(void)
{
    struct resp_limits limits = {.bulk_cap = BULK_CAP, .authenticated = true};
    struct resp_parser parser;
    resp_parser_init(&parser);
    uint8_t big[] = "*1\r\n$1000000\r\nab";
    CHECK(resp_parse(&parser, big, sizeof(big) - 1, &limits) == RESP_PARTIAL);
    CHECK(parser.wanted == 1000000);
    resp_parser_free(&parser);
    uint8_t many[] = "*2147483647\r\n$1\r\na\r\n";
    CHECK(resp_parse(&parser, many, sizeof(many) - 1, &limits) == RESP_PARTIAL);
    CHECK(parser.argc == 1 && parser.argv_capacity <= 16);
    resp_parser_free(&parser);
    return 0;
}

static int test_integers(void)
{
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } numbers[] = {
        {"0", true, 0},
        {"7", true, 7},
        {"-7", true, -7},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"18446744073709551616", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"-0", false, 0},
        {"00", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"1e3", false, 0},
        {"99999999999999999999", false, 0},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        int64_t value = 0;
        bool good = resp_parse_integer((const uint8_t *)numbers[i].text, strlen(numbers[i].text),
                                       &value);
        CHECK(good == numbers[i].good);
        CHECK(!good || value == numbers[i].value);
    }
    return 0;
}

static int check_output(struct oort_output *output, const char *expected)
{
    CHECK(!output->failed && output->size == strlen(expected));
    CHECK(memcmp(output->data, expected, output->size) == 0);
    output_free(output);
    return 0;
}

static int test_replies(void)
{
    static const char *const expected[2] = {
        "+OK\r\n-ERR a  b\r\n:-9223372036854775808\r\n:0\r\n$2\r\nhi\r\n$0\r\n\r\n$-1\r\n*-1\r\n"
        "*3\r\n*4\r\n$3\r\n1.5\r\n$3\r\ninf\r\n:1\r\n:0\r\n",
        "+OK\r\n-ERR a  b\r\n:-9223372036854775808\r\n:0\r\n$2\r\nhi\r\n$0\r\n\r\n_\r\n_\r\n"
        "*3\r\n%2\r\n,1.5\r\n,inf\r\n#t\r\n#f\r\n",
    };
    for (uint8_t protocol = 2; protocol <= 3; protocol++) {
        struct oort_output output = {0};
        reply_simple(&output, "OK");
        reply_error(&output, "ERR a\r\nb");
        reply_integer(&output, INT64_MIN);
        reply_integer(&output, 0);
        reply_bulk(&output, "hi", 2);
        reply_bulk(&output, "", 0);
        reply_null(&output, protocol);
        reply_null_array(&output, protocol);
        reply_array(&output, 3);
        reply_map(&output, 2, protocol);
        reply_double(&output, 1.5, protocol);
        reply_double(&output, INFINITY, protocol);
        reply_bool(&output, true, protocol);
        reply_bool(&output, false, protocol);
        CHECK(check_output(&output, expected[protocol - 2]) == 0);
    }
    return 0;
}

/* Memory is exhausted: the output reports it, keeps its content and accepts nothing more. */
static int test_failed_output(void)
{
    struct oort_output output = {0};
    reply_simple(&output, "OK");
    CHECK(output_reserve(&output, UINT64_MAX / 2) == NULL && output.failed);
    reply_integer(&output, 1);
    CHECK(output.size == 5);
    output_free(&output);
    return 0;
}

int main(void)
{
    return test_tables() || test_long_lines() || test_announcements() || test_integers() ||
           test_replies() || test_failed_output();
}
