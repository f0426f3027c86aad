/*
 * link.c: writes requests and checks replies (contract: link.h).
 */
#include "load/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int32_t load_tally_init(struct load_tally *tally, const oort_load_config *config)
{
    size_t prefix = strlen(config->prefix);
    if (prefix > LOAD_PREFIX_CAP)
        return OORT_ERR_ARGUMENT;
    memset(tally, 0, sizeof *tally);
    load_histogram_init(&tally->latency[OORT_LOAD_GET]);
    load_histogram_init(&tally->latency[OORT_LOAD_SET]);
    load_values_init(&tally->values, config->seed, config->value_min, config->value_max);
    tally->get_head_size = (uint32_t)snprintf(tally->get_head, sizeof tally->get_head,
                                              "*2\r\n$3\r\nGET\r\n$%zu\r\n%s",
                                              prefix + LOAD_KEY_DIGITS, config->prefix);
    tally->set_head_size = (uint32_t)snprintf(tally->set_head, sizeof tally->set_head,
                                              "*3\r\n$3\r\nSET\r\n$%zu\r\n%s",
                                              prefix + LOAD_KEY_DIGITS, config->prefix);
    return OORT_OK;
}

int32_t load_link_init(struct load_link *link, struct load_tally *tally, uint32_t pipeline)
{
    memset(link, 0, sizeof *link);
    link->tally = tally;
    link->pipeline = pipeline;
    link->requests = calloc(pipeline, sizeof *link->requests);
    return link->requests == NULL ? OORT_ERR_NOMEM : OORT_OK;
}

void load_link_clear(struct load_link *link)
{
    free(link->requests);
    free(link->out);
    link->requests = NULL;
    link->out = NULL;
}

/* ---- requests ---- */

static int32_t reserve(struct load_link *link, uint64_t more)
{
    if (link->out_capacity - link->out_size >= more)
        return OORT_OK;
    uint64_t capacity = link->out_capacity * 2 + more;
    uint8_t *out = realloc(link->out, capacity);
    if (out == NULL)
        return OORT_ERR_NOMEM;
    link->out = out;
    link->out_capacity = capacity;
    return OORT_OK;
}

static uint8_t *put_digits(uint8_t *at, uint64_t number, uint32_t digits)
{
    for (uint32_t i = digits; i-- > 0; number /= 10)
        at[i] = (uint8_t)('0' + number % 10);
    return at + digits;
}

static uint8_t *put_bytes(uint8_t *at, const void *data, size_t size)
{
    memcpy(at, data, size);
    return at + size;
}

static uint8_t *put_value(uint8_t *at, const struct load_value *value)
{
    uint32_t digits = 1;
    for (uint64_t rest = value->size; rest >= 10; rest /= 10)
        digits++;
    *at++ = '$';
    at = put_digits(at, value->size, digits);
    at = put_bytes(at, "\r\n", 2);
    load_value_write(value, at);
    return put_bytes(at + value->size, "\r\n", 2);
}

int32_t load_link_request(struct load_link *link, uint8_t op, uint64_t key, uint64_t version,
                          uint64_t start_ns)
{
    struct load_tally *tally = link->tally;
    struct load_value value = {0};
    if (op == OORT_LOAD_SET)
        value = load_value_of(&tally->values, key, version);
    /* 64: the digits of key and size, and their line ends. */
    int32_t status = reserve(link, sizeof tally->set_head + value.size + 64);
    if (status != OORT_OK)
        return status;

    uint8_t *at = link->out + link->out_size;
    if (op == OORT_LOAD_SET)
        at = put_bytes(at, tally->set_head, tally->set_head_size);
    else
        at = put_bytes(at, tally->get_head, tally->get_head_size);
    at = put_digits(at, key, LOAD_KEY_DIGITS);
    at = put_bytes(at, "\r\n", 2);
    if (op == OORT_LOAD_SET)
        at = put_value(at, &value);
    link->out_size = (uint64_t)(at - link->out);

    uint32_t next = link->first + link->in_flight;
    if (next >= link->pipeline)
        next -= link->pipeline;
    link->requests[next] = (struct load_request){.key = key, .start_ns = start_ns, .op = op};
    link->in_flight++;
    tally->in_flight++;
    return OORT_OK;
}

/* ---- replies ---- */

static void answered(struct load_link *link, uint64_t now_ns)
{
    struct load_tally *tally = link->tally;
    const struct load_request *request = &link->requests[link->first];
    tally->result.answered++;
    if (request->start_ns >= tally->measured_from_ns) {
        load_histogram_add(&tally->latency[request->op],
                           now_ns > request->start_ns ? now_ns - request->start_ns : 0);
        tally->last_reply_ns = now_ns;
        if (request->op == OORT_LOAD_GET)
            tally->result.gets++;
        else
            tally->result.sets++;
    }
    if (++link->first == link->pipeline)
        link->first = 0;
    link->in_flight--;
    tally->in_flight--;
}

static void note_error(oort_load_result *result, const uint8_t *text, uint64_t size)
{
    char kept[sizeof result->error_text[0]];
    uint64_t length = size < sizeof kept - 1 ? size : sizeof kept - 1;
    memcpy(kept, text, length);
    kept[length] = '\0';
    for (uint32_t i = 0; i < result->error_texts; i++)
        if (strcmp(result->error_text[i], kept) == 0)
            return;
    if (result->error_texts < OORT_LOAD_ERROR_TEXTS)
        memcpy(result->error_text[result->error_texts++], kept, sizeof kept);
}

/* Parses the number after the type byte.  False: not a number. */
static bool parse_size(const uint8_t *text, uint64_t size, uint64_t *out)
{
    uint64_t number = 0;
    if (size == 0 || size > 18)
        return false;
    for (uint64_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    *out = number;
    return true;
}

static bool begin_value(struct load_link *link, const uint8_t *line, uint64_t size)
{
    const struct load_request *request = &link->requests[link->first];
    struct load_tally *tally = link->tally;
    if (!parse_size(line + 1, size - 1, &link->value_size))
        return false;
    link->state = LOAD_IN_VALUE;
    link->value_offset = 0;
    link->value_ok = true;
    /* The version is unknown until the first 8 bytes of the value have arrived. */
    link->expected = load_value_of(&tally->values, request->key, 0);
    if (link->value_size == 0)
        link->state = LOAD_AFTER_VALUE;
    return true;
}

static bool take_line(struct load_link *link, const uint8_t *line, uint64_t size, uint64_t now_ns)
{
    oort_load_result *result = &link->tally->result;
    if (link->in_flight == 0 || size < 1) {
        result->unexpected++;
        return false;
    }
    uint8_t op = link->requests[link->first].op;
    bool is_null = (size == 3 && memcmp(line, "$-1", 3) == 0) || (size == 1 && line[0] == '_');
    if (is_null && op == OORT_LOAD_GET) {
        result->missing++;
    } else if (line[0] == '$' && !is_null) {
        if (begin_value(link, line, size))
            return true;
        result->unexpected++;
        return false;
    } else if (line[0] == '-') {
        result->error_replies++;
        note_error(result, line + 1, size - 1);
    } else if (line[0] == '+' || line[0] == ':' || is_null) {
        if (op != OORT_LOAD_SET || size != 3 || memcmp(line, "+OK", 3) != 0)
            result->unexpected++;
    } else {
        result->unexpected++;
        return false;
    }
    answered(link, now_ns);
    return true;
}

static void take_value(struct load_link *link, const uint8_t *data, uint64_t size)
{
    uint64_t offset = link->value_offset;
    link->value_offset += size;
    if (link->expected.versioned && offset < 8) {
        uint64_t step = 8 - offset < size ? 8 - offset : size;
        memcpy(link->version + offset, data, step);
        if (offset + step < 8)
            return;
        uint64_t version;
        memcpy(&version, link->version, 8);
        link->expected = load_value_of(&link->tally->values, link->requests[link->first].key,
                                       version);
        offset += step;
        data += step;
        size -= step;
    }
    if (link->value_ok && !load_value_matches(&link->expected, offset, data, size))
        link->value_ok = false;
}

static void end_value(struct load_link *link, uint64_t now_ns)
{
    oort_load_result *result = &link->tally->result;
    if (link->requests[link->first].op != OORT_LOAD_GET)
        result->unexpected++;
    else if (link->value_size != link->expected.size)
        result->wrong_size++;
    else if (!link->value_ok)
        result->wrong_value++;
    else
        result->hits++;
    link->state = LOAD_AT_LINE;
    answered(link, now_ns);
}

/* One step in a value or after a value.  False: the CRLF is missing. */
static bool feed_value(struct load_link *link, const uint8_t **data, const uint8_t *end,
                       uint64_t now_ns)
{
    if (link->state == LOAD_IN_VALUE) {
        uint64_t left = link->value_size - link->value_offset, here = (uint64_t)(end - *data);
        uint64_t step = left < here ? left : here;
        take_value(link, *data, step);
        *data += step;
        if (step == left) {
            link->state = LOAD_AFTER_VALUE;
            link->ending = 0;
        }
        return true;
    }
    if (**data != (link->ending == 0 ? '\r' : '\n')) {
        link->tally->result.unexpected++;
        return false;
    }
    (*data)++;
    if (++link->ending == 2) {
        link->ending = 0;
        end_value(link, now_ns);
    }
    return true;
}

/* Keeps part of a line until the rest arrives. */
static bool keep_line(struct load_link *link, const uint8_t *data, uint64_t size)
{
    if (size > LOAD_LINE_CAP - link->line_size) {
        link->tally->result.unexpected++;
        return false;
    }
    memcpy(link->line + link->line_size, data, size);
    link->line_size += (uint32_t)size;
    return true;
}

bool load_link_feed(struct load_link *link, const uint8_t *data, uint64_t size, uint64_t now_ns)
{
    const uint8_t *end = data + size;
    while (data < end) {
        if (link->state != LOAD_AT_LINE) {
            if (!feed_value(link, &data, end, now_ns))
                return false;
            continue;
        }
        const uint8_t *newline = memchr(data, '\n', (size_t)(end - data));
        if (newline == NULL)
            return keep_line(link, data, (uint64_t)(end - data));
        const uint8_t *line = data;
        uint64_t length = (uint64_t)(newline - data);
        if (link->line_size > 0) {
            if (!keep_line(link, data, length))
                return false;
            line = link->line;
            length = link->line_size;
            link->line_size = 0;
        }
        data = newline + 1;
        if (length == 0 || line[length - 1] != '\r') {
            link->tally->result.unexpected++;
            return false;
        }
        if (!take_line(link, line, length - 1, now_ns))
            return false;
    }
    return true;
}
