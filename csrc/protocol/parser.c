/*
 * parser.c: the request parser with a buffer of its own, for tools and tests that have no
 * connection.  The data plane uses resp.h directly.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol/resp.h"

struct oort_parser {
    struct resp_parser parser;
    uint8_t *data;
    uint64_t begin; /* first byte of the request in progress */
    uint64_t size;
    uint64_t capacity;
    char error[RESP_ERROR_BYTES];
};

oort_parser *oort_parser_open(void)
{
    oort_parser *self = calloc(1, sizeof(*self));
    if (self != NULL) {
        resp_parser_init(&self->parser);
    }
    return self;
}

void oort_parser_close(oort_parser *self)
{
    resp_parser_free(&self->parser);
    free(self->data);
    free(self);
}

int32_t oort_parser_feed(oort_parser *self, const uint8_t *data, uint64_t size)
{
    if (self->begin > 0) {
        memmove(self->data, self->data + self->begin, self->size - self->begin);
        self->size -= self->begin;
        self->begin = 0;
    }
    if (size > SIZE_MAX / 4 || self->size > SIZE_MAX / 4) {
        return OORT_ERR_NOMEM;
    }
    if (self->capacity - self->size < size) {
        uint64_t capacity = (self->size + size) * 2;
        uint8_t *grown = realloc(self->data, capacity);
        if (grown == NULL) {
            return OORT_ERR_NOMEM;
        }
        self->data = grown;
        self->capacity = capacity;
    }
    if (size > 0) {
        memcpy(self->data + self->size, data, size);
        self->size += size;
    }
    return OORT_OK;
}

int32_t oort_parser_next(oort_parser *self, uint64_t bulk_cap, bool authenticated,
                         const oort_bytes **argv, uint32_t *argc)
{
    struct resp_limits limits = {.bulk_cap = bulk_cap, .authenticated = authenticated};
    if (self->begin == self->size) {
        return OORT_MISSING;
    }
    uint8_t *begin = self->data + self->begin;
    switch (resp_parse(&self->parser, begin, self->size - self->begin, &limits)) {
    case RESP_REQUEST:
        self->begin += self->parser.consumed;
        *argv = self->parser.argv;
        *argc = self->parser.argc;
        return OORT_OK;
    case RESP_PARTIAL:
        return OORT_MISSING;
    case RESP_NOMEM:
        return OORT_ERR_NOMEM;
    default:
        resp_parser_error(&self->parser, self->error);
        return OORT_ERR_ARGUMENT;
    }
}

const char *oort_parser_error(const oort_parser *self)
{
    return self->error;
}
