/*
 * assert.h: invariants that are checked in production too.
 *
 * A broken invariant means that the program's state is no longer what its author relied on.  Going
 * on could acknowledge or return wrong data, so the process prints one line and aborts.
 * Conditions that input, the disk or the operator can cause are errors and not invariants.
 *
 * Limit: assert only what is cheap enough for the path that it stands on.
 */
#ifndef OORT_ASSERT_H
#define OORT_ASSERT_H

/* invariant: what always holds, in words, for the person who reads the line. */
#define OORT_ASSERT(condition, invariant)                                                          \
    ((condition) ? (void)0 : oort_assert_failed(__FILE__, __LINE__, invariant))

/* Writes "FILE:LINE: broken invariant: INVARIANT" to stderr and aborts.  It allocates nothing. */
_Noreturn void oort_assert_failed(const char *file, int line, const char *invariant)
    __attribute__((cold));

#endif
