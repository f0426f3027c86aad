/*
 * assert.c: ends a process in which an invariant is broken.  See assert.h.
 */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void oort_assert_failed(const char *file, int line, const char *invariant)
{
    /* The heap and stdio may be damaged.  A buffer on the stack and write(2) need neither. */
    char text[512];
    int size = snprintf(text, sizeof text, "oort: broken invariant at %s:%d: %s\n", file, line,
                        invariant);
    if (size >= (int)sizeof text) {
        size = (int)sizeof text - 1;
        text[size - 1] = '\n';
    }
    if (size > 0)
        (void)!write(STDERR_FILENO, text, (size_t)size);
    abort();
}
