/*
 * hash.c: hashes and checksums: the Redis Cluster slot of a key (CRC16/XMODEM over the key or its
 * {hash tag}), the ring hash (the slot in the top 14 bits, XXH3 below), and CRC32C.
 *
 * Both checksums are linear.  Each table row is therefore written as the eight values of its
 * single-bit bytes; the preprocessor computes the others.
 *
 * https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
 */
#include "oort.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define SLOT_COUNT_BITS 14
#define RING_LOW_BITS 50

#define PICK(b, bit, value) (((b) >> (bit)) & 1 ? (value) : 0)
#define BYTE(b, v0, v1, v2, v3, v4, v5, v6, v7)                                                    \
    PICK(b, 0, v0) ^ PICK(b, 1, v1) ^ PICK(b, 2, v2) ^ PICK(b, 3, v3) ^ PICK(b, 4, v4) ^           \
        PICK(b, 5, v5) ^ PICK(b, 6, v6) ^ PICK(b, 7, v7)
#define BYTES_4(b, ...)                                                                            \
    BYTE((b), __VA_ARGS__), BYTE((b) + 1, __VA_ARGS__), BYTE((b) + 2, __VA_ARGS__),                \
        BYTE((b) + 3, __VA_ARGS__)
#define BYTES_16(b, ...)                                                                           \
    BYTES_4((b), __VA_ARGS__), BYTES_4((b) + 4, __VA_ARGS__), BYTES_4((b) + 8, __VA_ARGS__),       \
        BYTES_4((b) + 12, __VA_ARGS__)
#define BYTES_64(b, ...)                                                                           \
    BYTES_16((b), __VA_ARGS__), BYTES_16((b) + 16, __VA_ARGS__), BYTES_16((b) + 32, __VA_ARGS__),  \
        BYTES_16((b) + 48, __VA_ARGS__)
#define ROW(...)                                                                                   \
    {BYTES_64(0, __VA_ARGS__), BYTES_64(64, __VA_ARGS__), BYTES_64(128, __VA_ARGS__),              \
     BYTES_64(192, __VA_ARGS__)}

/* Row k: the value that a byte adds to the checksum when k more bytes follow it. */
static const uint16_t CRC16_ROWS[8][256] = {
    ROW(0x1021, 0x2042, 0x4084, 0x8108, 0x1231, 0x2462, 0x48c4, 0x9188),
    ROW(0x3331, 0x6662, 0xccc4, 0x89a9, 0x0373, 0x06e6, 0x0dcc, 0x1b98),
    ROW(0x3730, 0x6e60, 0xdcc0, 0xa9a1, 0x4363, 0x86c6, 0x1dad, 0x3b5a),
    ROW(0x76b4, 0xed68, 0xcaf1, 0x85c3, 0x1ba7, 0x374e, 0x6e9c, 0xdd38),
    ROW(0xaa51, 0x4483, 0x8906, 0x022d, 0x045a, 0x08b4, 0x1168, 0x22d0),
    ROW(0x45a0, 0x8b40, 0x06a1, 0x0d42, 0x1a84, 0x3508, 0x6a10, 0xd420),
    ROW(0xb861, 0x60e3, 0xc1c6, 0x93ad, 0x377b, 0x6ef6, 0xddec, 0xabf9),
    ROW(0x47d3, 0x8fa6, 0x0f6d, 0x1eda, 0x3db4, 0x7b68, 0xf6d0, 0xfd81),
};

static const uint32_t CRC32C_ROWS[8][256] = {
    ROW(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc,
        0x82f63b78),
    ROW(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604,
        0xfbc3faf9),
    ROW(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9,
        0x8b277743),
    ROW(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7,
        0x52a0c93f),
    ROW(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae,
        0x6ea2d55c),
    ROW(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb,
        0x1c08b7d6),
    ROW(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a,
        0xf56e0ef4),
    ROW(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32,
        0x34019664),
};

static uint32_t crc16(const uint8_t *data, size_t size)
{
    uint32_t sum = 0;
    while (size >= 8) {
        sum = CRC16_ROWS[7][data[0] ^ (sum >> 8)] ^ CRC16_ROWS[6][data[1] ^ (sum & 0xff)] ^
              CRC16_ROWS[5][data[2]] ^ CRC16_ROWS[4][data[3]] ^ CRC16_ROWS[3][data[4]] ^
              CRC16_ROWS[2][data[5]] ^ CRC16_ROWS[1][data[6]] ^ CRC16_ROWS[0][data[7]];
        data += 8;
        size -= 8;
    }
    while (size-- > 0)
        sum = ((sum << 8) & 0xffff) ^ CRC16_ROWS[0][(sum >> 8) ^ *data++];
    return sum;
}

uint32_t oort_key_slot(const uint8_t *key, size_t size)
{
    const uint8_t *open = size == 0 ? NULL : memchr(key, '{', size);
    if (open != NULL) {
        const uint8_t *tag = open + 1;
        size_t rest = size - (size_t)(tag - key);
        const uint8_t *end = rest == 0 ? NULL : memchr(tag, '}', rest);
        if (end != NULL && end > tag) {
            key = tag;
            size = (size_t)(end - tag);
        }
    }
    return crc16(key, size) & ((1u << SLOT_COUNT_BITS) - 1);
}

uint64_t oort_ring_hash(const uint8_t *key, size_t size, uint8_t database)
{
    uint64_t low = XXH3_64bits_withSeed(key, size, database);
    return (uint64_t)oort_key_slot(key, size) << RING_LOW_BITS |
           (low & ((UINT64_C(1) << RING_LOW_BITS) - 1));
}

void oort_key_init(oort_key *key, const uint8_t *data, size_t size, uint8_t database)
{
    key->data = data;
    key->hash = oort_ring_hash(data, size, database);
    key->size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
    key->database = database;
}

/* The functions below take and return the inner register, which is not inverted. */

#if !(defined(__aarch64__) && defined(__ARM_FEATURE_CRC32))
static uint32_t crc32c_table(uint32_t sum, const uint8_t *data, size_t size)
{
    while (size >= 8) {
        sum = CRC32C_ROWS[7][data[0] ^ (sum & 0xff)] ^ CRC32C_ROWS[6][data[1] ^ (sum >> 8 & 0xff)] ^
              CRC32C_ROWS[5][data[2] ^ (sum >> 16 & 0xff)] ^ CRC32C_ROWS[4][data[3] ^ (sum >> 24)] ^
              CRC32C_ROWS[3][data[4]] ^ CRC32C_ROWS[2][data[5]] ^ CRC32C_ROWS[1][data[6]] ^
              CRC32C_ROWS[0][data[7]];
        data += 8;
        size -= 8;
    }
    while (size-- > 0)
        sum = (sum >> 8) ^ CRC32C_ROWS[0][(sum ^ *data++) & 0xff];
    return sum;
}
#endif

#if defined(__x86_64__)

static inline uint64_t load64(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_one(uint32_t sum, const uint8_t *data,
                                                             size_t size)
{
    uint64_t wide = sum;
    for (; size >= 8; size -= 8, data += 8)
        wide = _mm_crc32_u64(wide, load64(data));
    sum = (uint32_t)wide;
    while (size-- > 0)
        sum = _mm_crc32_u8(sum, *data++);
    return sum;
}

/* Computes three neighbouring lanes at once because the instruction has a latency of three cycles.
 * A lane's checksum moves past the lanes after it by a multiplication with x^(8 * bytes after it -
 * 33). The bit reflection and the reduction of the product compensate for the 33. */
__attribute__((target("sse4.2,pclmul"))) static inline uint32_t
crc32c_lanes(uint32_t sum, const uint8_t *data, size_t lane, uint32_t past_two, uint32_t past_one)
{
    uint64_t a = sum, b = 0, c = 0;
    __m128i carried;
    for (size_t i = 0; i < lane; i += 8) {
        a = _mm_crc32_u64(a, load64(data + i));
        b = _mm_crc32_u64(b, load64(data + lane + i));
        c = _mm_crc32_u64(c, load64(data + 2 * lane + i));
    }
    carried = _mm_xor_si128(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a),
                                                 _mm_cvtsi64_si128((long long)past_two), 0),
                            _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)b),
                                                 _mm_cvtsi64_si128((long long)past_one), 0));
    return (uint32_t)(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(carried)) ^ c);
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
crc32c_three(uint32_t sum, const uint8_t *data, size_t size)
{
    for (; size >= 3 * 1024; size -= 3 * 1024, data += 3 * 1024)
        sum = crc32c_lanes(sum, data, 1024, 0xa51b6135, 0x170076fa);
    for (; size >= 3 * 64; size -= 3 * 64, data += 3 * 64)
        sum = crc32c_lanes(sum, data, 64, 0x0d3b6092, 0x9e4addf8);
    return crc32c_one(sum, data, size);
}

uint32_t oort_crc32c(uint32_t seed, const void *data, size_t size)
{
    if (!__builtin_cpu_supports("sse4.2"))
        return ~crc32c_table(~seed, data, size);
    if (size >= 3 * 64 && __builtin_cpu_supports("pclmul"))
        return ~crc32c_three(~seed, data, size);
    return ~crc32c_one(~seed, data, size);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

uint32_t oort_crc32c(uint32_t seed, const void *data, size_t size)
{
    const uint8_t *at = data;
    uint32_t sum = ~seed;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        sum = __crc32cd(sum, word);
    }
    while (size-- > 0)
        sum = __crc32cb(sum, *at++);
    return ~sum;
}

#else

uint32_t oort_crc32c(uint32_t seed, const void *data, size_t size)
{
    return ~crc32c_table(~seed, data, size);
}

#endif
