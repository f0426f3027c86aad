/*
 * assert.c: the end of a process whose invariant is broken.  See assert.h.
 */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void oort_assert_failed(const char *file, int line, const char *invariant)
{
    char text[512];
    int size = snprintf(text, sizeof text, "%s:%d: broken invariant: %s\n", file, line, invariant);

    if (size > 0) {
        size_t length = (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
        /* Nothing can be done about a failed write: the process is about to end. */
        ssize_t written = write(STDERR_FILENO, text, length);
        (void)written;
    }
    abort();
}
