/*
 * test_hash.c: slots, ring hashes and checksums, compared with known values and with bit-by-bit
 * reference implementations for every length and alignment that takes another path.
 */
#include "oort.h"

#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static uint32_t slot_of(const char *key)
{
    return oort_key_slot((const uint8_t *)key, strlen(key));
}

static uint32_t reference_crc16(const uint8_t *data, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        sum ^= (uint32_t)data[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            sum = (sum & 0x8000 ? sum << 1 ^ 0x1021 : sum << 1) & 0xffff;
    }
    return sum;
}

static uint32_t reference_crc32c(uint32_t seed, const uint8_t *data, size_t size)
{
    uint32_t sum = ~seed;
    for (size_t i = 0; i < size; i++) {
        sum ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum & 1 ? sum >> 1 ^ 0x82f63b78 : sum >> 1;
    }
    return ~sum;
}

static int test_slots(void)
{
    CHECK(slot_of("123456789") == (0x31c3 & 16383));
    CHECK(slot_of("foo") == 12182);
    CHECK(slot_of("") == 0);
    CHECK(slot_of("{user1000}.following") == slot_of("user1000"));
    CHECK(slot_of("{user1000}.followers") == slot_of("user1000"));
    CHECK(slot_of("foo{bar}{zap}") == slot_of("bar"));
    CHECK(slot_of("foo{{bar}}zap") == slot_of("{bar"));
    CHECK(slot_of("foo{}{bar}") == (reference_crc16((const uint8_t *)"foo{}{bar}", 10) & 16383));
    CHECK(slot_of("foo{bar") == (reference_crc16((const uint8_t *)"foo{bar", 7) & 16383));
    CHECK(slot_of("foo{") == (reference_crc16((const uint8_t *)"foo{", 4) & 16383));
    CHECK(slot_of("}a{b}") == slot_of("b"));
    return 0;
}

static int test_against_reference(void)
{
    static uint8_t bytes[8192 + 16];
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof bytes; i++) {
        state = state * 1103515245u + 12345u;
        bytes[i] = (uint8_t)(state >> 16);
        if (bytes[i] == '{')
            bytes[i] = '[';
    }
    CHECK(oort_crc32c(0, "123456789", 9) == 0xe3069283);
    CHECK(oort_crc32c(0, "", 0) == 0);
    for (size_t size = 0; size < 700; size++) {
        const uint8_t *at = bytes + size % 9;
        CHECK(oort_key_slot(at, size) == (reference_crc16(at, size) & 16383));
        CHECK(oort_crc32c(0, at, size) == reference_crc32c(0, at, size));
    }
    for (size_t size = 2900; size < 8192; size += 97)
        CHECK(oort_crc32c((uint32_t)size, bytes + 3, size) ==
              reference_crc32c((uint32_t)size, bytes + 3, size));
    for (size_t cut = 0; cut <= 4000; cut += 333)
        CHECK(oort_crc32c(oort_crc32c(0, bytes, cut), bytes + cut, 4000 - cut) ==
              oort_crc32c(0, bytes, 4000));
    return 0;
}

static int test_ring_hash(void)
{
    oort_key key;
    const uint8_t *foo = (const uint8_t *)"foo";
    oort_key_init(&key, foo, 3, 0);
    CHECK(key.data == foo && key.size == 3 && key.database == 0);
    CHECK(key.hash >> 50 == 12182);
    CHECK(key.hash == oort_ring_hash(foo, 3, 0));
    /* XXH3_64bits("foo") is 0xab6e5f64077e7d8a. */
    CHECK((key.hash & ((UINT64_C(1) << 50) - 1)) ==
          (UINT64_C(0xab6e5f64077e7d8a) & ((UINT64_C(1) << 50) - 1)));
    CHECK(oort_ring_hash(foo, 3, 1) >> 50 == 12182);
    CHECK(oort_ring_hash(foo, 3, 1) != key.hash);
    CHECK(oort_ring_hash(foo, 0, 0) >> 50 == 0);
    return 0;
}

int main(void)
{
    return test_slots() != 0 || test_against_reference() != 0 || test_ring_hash() != 0;
}
