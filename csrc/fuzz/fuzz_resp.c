/*
 * fuzz_resp.c: libFuzzer target for the parser.  For any bytes, cut into any pieces, the parser
 * must find the same requests and end in the same way, and its arguments must lie inside the
 * buffer.
 *
 * Input: one byte of flags (bit 0: authenticated), one byte with the number of cuts, a 16-bit piece
 * size for each cut, then the stream.  A piece is copied into a buffer of exactly its size, so the
 * sanitizer finds every read beyond it.
 */
#include "protocol/resp.h"

#include <stdlib.h>
#include <string.h>

#define BULK_CAP 100000u

struct digest {
    uint64_t requests;
    uint64_t sum;
    uint64_t rest; /* bytes of the unfinished request; after an error, the rest of the stream */
    int result;
    uint8_t error;
};

static void require(int condition)
{
    if (!condition) {
        abort();
    }
}

static void add_request(struct digest *digest, const struct resp_parser *parser,
                        const uint8_t *begin)
{
    digest->requests++;
    digest->sum = digest->sum * 31 + parser->argc;
    for (uint32_t i = 0; i < parser->argc; i++) {
        const oort_bytes *argument = &parser->argv[i];
        require(argument->data >= begin);
        require(argument->data + argument->size <= begin + parser->consumed);
        digest->sum = digest->sum * 31 + argument->size;
        digest->sum = digest->sum * 31 + oort_crc32c(0, argument->data, argument->size);
    }
}

static struct digest parse(const uint8_t *stream, size_t size, const uint8_t *cuts,
                           size_t cut_count, bool authenticated)
{
    struct resp_limits limits = {.bulk_cap = BULK_CAP, .authenticated = authenticated};
    struct digest digest = {0};
    struct resp_parser parser;
    resp_parser_init(&parser);
    uint8_t *buffer = NULL;
    size_t held = 0;
    size_t fed = 0;
    for (size_t cut = 0; fed < size && digest.result != RESP_ERROR; cut++) {
        size_t piece = size - fed;
        if (cut < cut_count) {
            size_t asked = cuts[2 * cut] + 256u * cuts[2 * cut + 1];
            piece = asked < piece ? asked : piece;
        }
        uint8_t *moved = malloc(held + piece + (held + piece == 0));
        require(moved != NULL);
        if (held > 0) {
            memcpy(moved, buffer, held);
        }
        memcpy(moved + held, stream + fed, piece);
        free(buffer);
        buffer = moved;
        held += piece;
        fed += piece;
        size_t begin = 0;
        while ((digest.result = resp_parse(&parser, buffer + begin, held - begin, &limits)) ==
               RESP_REQUEST) {
            require(parser.consumed > 0 && parser.consumed <= held - begin);
            add_request(&digest, &parser, buffer + begin);
            begin += parser.consumed;
        }
        require(digest.result == RESP_ERROR || digest.result == RESP_PARTIAL);
        /* The capacity that an earlier request needed is kept. */
        require(parser.argv_capacity <= 16 + 2 * (fed + 1));
        memmove(buffer, buffer + begin, held - begin);
        held -= begin;
    }
    if (digest.result == RESP_ERROR) {
        char text[RESP_ERROR_BYTES];
        resp_parser_error(&parser, text);
        require(strlen(text) > strlen("Protocol error: "));
        digest.error = parser.error;
    }
    digest.rest = digest.result == RESP_PARTIAL ? held : 0;
    free(buffer);
    resp_parser_free(&parser);
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    bool authenticated = data[0] & 1;
    size_t cut_count = data[1];
    if (size < 2 + 2 * cut_count) {
        cut_count = (size - 2) / 2;
    }
    const uint8_t *stream = data + 2 + 2 * cut_count;
    size_t stream_size = size - 2 - 2 * cut_count;
    struct digest whole = parse(stream, stream_size, NULL, 0, authenticated);
    struct digest pieces = parse(stream, stream_size, data + 2, cut_count, authenticated);
    require(whole.requests == pieces.requests && whole.sum == pieces.sum);
    require(whole.result == pieces.result && whole.error == pieces.error);
    require(whole.rest == pieces.rest);
    return 0;
}
