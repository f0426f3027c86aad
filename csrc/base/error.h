/*
 * error.h: filling in an oort_error.
 */
#ifndef OORT_ERROR_H
#define OORT_ERROR_H

#include "oort.h"

/* Fill an error: one line, with the place and the cure.  Returns code.  error may be NULL. */
int32_t oort_fail(oort_error *error, int32_t code, int32_t sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
