/*
 * test_command_table.c: every row of the command table is found by its name in any case, and no
 * other name is found.
 */
#include "commands/table.h"

#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int main(void)
{
    for (uint32_t i = 0; i < oort_command_count(); i++) {
        const oort_command_info *info = oort_command_at(i);
        char upper[64];
        size_t size = strlen(info->name);
        CHECK(size < sizeof(upper) && info->arity != 0 && info->details[0] == '{');
        for (size_t j = 0; j <= size; j++) {
            bool letter = info->name[j] >= 'a' && info->name[j] <= 'z';
            CHECK(!(info->name[j] >= 'A' && info->name[j] <= 'Z'));
            upper[j] = letter && j % 2 == 0 ? (char)(info->name[j] - 32) : info->name[j];
        }
        CHECK(oort_command_find((const uint8_t *)info->name, size) == (int32_t)i);
        CHECK(oort_command_find((const uint8_t *)upper, size) == (int32_t)i);
        if (size > 1) {
            int32_t shorter = oort_command_find((const uint8_t *)info->name, size - 1);
            CHECK(shorter < 0 || strlen(oort_command_at((uint32_t)shorter)->name) == size - 1);
        }
        upper[size] = 0;
        CHECK(oort_command_find((const uint8_t *)upper, size + 1) < 0);
    }
    CHECK(oort_command_at(oort_command_count()) == NULL);
    CHECK(oort_command_find((const uint8_t *)"", 0) < 0);
    int32_t get = oort_command_find((const uint8_t *)"get", 3);
    CHECK((oort_command_at((uint32_t)get)->flags & OORT_CMD_NATIVE) != 0);
    static const oort_bytes requests[][2] = {
        {{(const uint8_t *)"GeT", 3}, {(const uint8_t *)"a", 1}},
        {{(const uint8_t *)"ping", 4}, {(const uint8_t *)"a", 1}},
        {{(const uint8_t *)"keys", 4}, {(const uint8_t *)"a", 1}}};
    uint32_t first_key;
    CHECK(command_resolve(requests[0], 2, &first_key) == get && first_key == 1);
    CHECK(command_resolve(requests[1], 2, &first_key) >= 0 && first_key == 0);
    CHECK(command_resolve(requests[2], 2, &first_key) >= 0 && first_key == 0);
    /* A byte that differs from a letter's or a sign's by the bit of lower case only. */
    CHECK(oort_command_find((const uint8_t *)"client|no\revict", 15) < 0);
    CHECK(oort_command_find((const uint8_t *)"client|no-evict", 15) >= 0);
    CHECK(oort_command_find((const uint8_t *)"client|", 7) < 0);
    CHECK(oort_command_find((const uint8_t *)"id", 2) < 0);
    return 0;
}
