/*
 * assert.h: invariants that are checked in production too.
 *
 * A broken invariant means that memory is not in the state that the code relies on.  The process
 * ends because going on could destroy data.  The content of files is no reason to end the process:
 * damaged files are reported as errors.  On the path of a GET an assertion costs no more than a
 * compare with a value that is already in a register.
 */
#ifndef OORT_ASSERT_H
#define OORT_ASSERT_H

/* invariant: a string literal that states the condition that always holds. */
#define OORT_ASSERT(condition, invariant)                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            oort_assert_failed(__FILE__, __LINE__, invariant);                                     \
    } while (0)

/* Writes "oort: broken invariant at FILE:LINE: INVARIANT" to stderr and aborts. */
void oort_assert_failed(const char *file, int line, const char *invariant)
    __attribute__((noreturn, cold));

#endif
