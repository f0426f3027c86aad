/*
 * error.h: fills in an oort_error.
 */
#ifndef OORT_ERROR_H
#define OORT_ERROR_H

#include "oort.h"

/* The text is one line that gives the place, the cause and the cure.  error may be NULL.  Returns
 * code. */
int32_t oort_fail(oort_error *error, int32_t code, int32_t sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
