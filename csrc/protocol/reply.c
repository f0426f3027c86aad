/*
 * reply.c: the reply writer of resp.h: RESP2 and RESP3 appended to a growable buffer.
 *
 * Appending reports no failure.  An output that could not grow sets `failed` and accepts nothing
 * more.  So code that replies needs no checks, and the connection checks once.
 */
#include "protocol/resp.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define OUTPUT_FIRST 1024u
/* Type byte, 20 digits with sign, CRLF. */
#define HEADER_BYTES 24u

void output_free(struct oort_output *output)
{
    OORT_ASSERT(output->pinned == 0, "an output is freed after its pins are released");
    free(output->data);
    free(output->pins);
    memset(output, 0, sizeof(*output));
}

void output_release_pin(struct oort_output *output, struct output_pin *pin)
{
    if (pin->bytes.release != NULL) {
        OORT_ASSERT(output->pinned >= pin->bytes.size, "an output counts the bytes of its pins");
        output->pinned -= pin->bytes.size;
        pin->bytes.release(pin->bytes.owner, pin->bytes.pin);
        pin->bytes.release = NULL;
    }
}

void output_drop_pins(struct oort_output *output, uint32_t keep)
{
    while (output->pin_count > keep) {
        output->pin_count--;
        output_release_pin(output, &output->pins[output->pin_count]);
    }
}

struct output_mark output_mark(const struct oort_output *output)
{
    return (struct output_mark){.size = output->size, .pin_count = output->pin_count};
}

void output_rollback(struct oort_output *output, struct output_mark mark)
{
    OORT_ASSERT(mark.size <= output->size && mark.pin_count <= output->pin_count,
                "a mark is not behind the end of its output");
    output_drop_pins(output, mark.pin_count);
    output->size = mark.size;
}

static uint8_t *grow(struct oort_output *output, uint64_t more)
{
    uint64_t capacity = output->capacity < OUTPUT_FIRST ? OUTPUT_FIRST : output->capacity;
    if (more > SIZE_MAX / 4 || output->size > SIZE_MAX / 4) {
        output->failed = true;
        return NULL;
    }
    while (capacity - output->size < more) {
        capacity *= 2;
    }
    uint8_t *data = realloc(output->data, capacity);
    if (data == NULL) {
        output->failed = true;
        return NULL;
    }
    output->data = data;
    output->capacity = capacity;
    return data + output->size;
}

uint8_t *output_reserve(struct oort_output *output, uint64_t more)
{
    if (output->failed) {
        return NULL;
    }
    if (output->capacity - output->size >= more && output->data != NULL) {
        return output->data + output->size;
    }
    return grow(output, more);
}

void output_append(struct oort_output *output, const void *data, uint64_t size)
{
    if (size == 0) {
        return;
    }
    uint8_t *at = output_reserve(output, size);
    if (at != NULL) {
        memcpy(at, data, size);
        output->size += size;
    }
}

/* Type, decimal number, CRLF.  Returns how many of the HEADER_BYTES at `at` it used. */
static uint64_t write_header(uint8_t *at, char type, uint64_t number, bool negative)
{
    uint8_t digits[20];
    uint64_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    uint8_t *out = at;
    *out++ = (uint8_t)type;
    if (negative) {
        *out++ = '-';
    }
    while (count > 0) {
        *out++ = digits[--count];
    }
    *out++ = '\r';
    *out++ = '\n';
    return (uint64_t)(out - at);
}

static void append_header(struct oort_output *output, char type, uint64_t number)
{
    uint8_t *at = output_reserve(output, HEADER_BYTES);
    if (at != NULL) {
        output->size += write_header(at, type, number, false);
    }
}

void reply_simple(struct oort_output *output, const char *text)
{
    uint64_t size = strlen(text);
    uint8_t *at = output_reserve(output, size + 3);
    if (at == NULL) {
        return;
    }
    at[0] = '+';
    memcpy(at + 1, text, size);
    memcpy(at + 1 + size, "\r\n", 2);
    output->size += size + 3;
}

void reply_error(struct oort_output *output, const char *text)
{
    uint64_t size = strlen(text);
    while (size > 0 && (text[size - 1] == '\r' || text[size - 1] == '\n')) {
        size--;
    }
    uint8_t *at = output_reserve(output, size + 3);
    if (at == NULL) {
        return;
    }
    at[0] = '-';
    for (uint64_t i = 0; i < size; i++) {
        at[1 + i] = text[i] == '\r' || text[i] == '\n' ? ' ' : (uint8_t)text[i];
    }
    memcpy(at + 1 + size, "\r\n", 2);
    output->size += size + 3;
}

void reply_integer(struct oort_output *output, int64_t value)
{
    uint8_t *at = output_reserve(output, HEADER_BYTES);
    if (at != NULL) {
        uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
        output->size += write_header(at, ':', magnitude, value < 0);
    }
}

void reply_bulk(struct oort_output *output, const void *data, uint64_t size)
{
    if (size > SIZE_MAX / 4) {
        output->failed = true;
        return;
    }
    uint8_t *at = output_reserve(output, HEADER_BYTES + size + 2);
    if (at == NULL) {
        return;
    }
    uint64_t header = write_header(at, '$', size, false);
    if (size > 0) {
        memcpy(at + header, data, size);
    }
    memcpy(at + header + size, "\r\n", 2);
    output->size += header + size + 2;
}

bool output_append_pinned(struct oort_output *output, const struct pinned_bytes *bytes,
                          bool is_value)
{
    OORT_ASSERT(bytes->release != NULL, "pinned bytes can be released");
    if (output->failed) {
        return false;
    }
    if (output->pin_count == output->pin_capacity) {
        uint32_t capacity = output->pin_capacity == 0 ? 4 : output->pin_capacity * 2;
        struct output_pin *pins = capacity <= output->pin_capacity
                                      ? NULL
                                      : realloc(output->pins, (size_t)capacity * sizeof(*pins));
        if (pins == NULL) {
            output->failed = true;
            return false;
        }
        output->pins = pins;
        output->pin_capacity = capacity;
    }
    output->pins[output->pin_count++] =
        (struct output_pin){.offset = output->size, .bytes = *bytes, .is_value = is_value};
    output->pinned += bytes->size;
    return true;
}

void output_move(struct oort_output *output, struct oort_output *from)
{
    uint64_t base = output->size;

    output_append(output, from->data, from->size);
    for (uint32_t i = 0; i < from->pin_count && !output->failed; i++) {
        struct output_pin *pin = &from->pins[i];
        uint64_t size = pin->bytes.size;
        if (!output_append_pinned(output, &pin->bytes, pin->is_value)) {
            break;
        }
        output->pins[output->pin_count - 1].offset = base + pin->offset;
        pin->bytes.release = NULL; /* output's from now on */
        from->pinned -= size;
    }
    output_drop_pins(from, 0);
    output_free(from);
}

bool reply_bulk_pinned(struct oort_output *output, const struct pinned_bytes *bytes)
{
    uint8_t *at = output_reserve(output, HEADER_BYTES + 2);
    if (at == NULL) {
        return false;
    }
    output->size += write_header(at, '$', bytes->size, false);
    if (!output_append_pinned(output, bytes, true)) {
        return false;
    }
    output_append(output, "\r\n", 2);
    return true;
}

void reply_null(struct oort_output *output, uint8_t protocol)
{
    if (protocol >= 3) {
        output_append(output, "_\r\n", 3);
    } else {
        output_append(output, "$-1\r\n", 5);
    }
}

void reply_null_array(struct oort_output *output, uint8_t protocol)
{
    if (protocol >= 3) {
        output_append(output, "_\r\n", 3);
    } else {
        output_append(output, "*-1\r\n", 5);
    }
}

void reply_array(struct oort_output *output, uint64_t count)
{
    append_header(output, '*', count);
}

void reply_map(struct oort_output *output, uint64_t count, uint8_t protocol)
{
    if (protocol >= 3) {
        append_header(output, '%', count);
    } else {
        append_header(output, '*', count * 2);
    }
}

void reply_double(struct oort_output *output, double value, uint8_t protocol)
{
    char text[40];
    int size;
    if (isinf(value)) {
        size = snprintf(text, sizeof(text), "%s", value > 0 ? "inf" : "-inf");
    } else if (isnan(value)) {
        size = snprintf(text, sizeof(text), "nan");
    } else {
        size = snprintf(text, sizeof(text), "%.17g", value);
    }
    if (protocol >= 3) {
        output_append(output, ",", 1);
        output_append(output, text, (uint64_t)size);
        output_append(output, "\r\n", 2);
    } else {
        reply_bulk(output, text, (uint64_t)size);
    }
}

void reply_bool(struct oort_output *output, bool value, uint8_t protocol)
{
    if (protocol >= 3) {
        output_append(output, value ? "#t\r\n" : "#f\r\n", 4);
    } else {
        reply_integer(output, value ? 1 : 0);
    }
}
