/*
 * assert.h: invariants that are checked in production too.
 *
 * A broken invariant means that memory or a data structure is not what the code takes it for.  To go
 * on could destroy data, so the process ends.  On the path of a GET an assertion must cost no more
 * than a compare with a value that is in a register already.
 */
#ifndef OORT_ASSERT_H
#define OORT_ASSERT_H

/* invariant: a string literal that states what always holds. */
#define OORT_ASSERT(condition, invariant)                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            oort_assert_failed(__FILE__, __LINE__, invariant);                                     \
    } while (0)

/* Writes "oort: broken invariant at FILE:LINE: INVARIANT" to stderr and aborts. */
void oort_assert_failed(const char *file, int line, const char *invariant)
    __attribute__((noreturn, cold));

#endif
