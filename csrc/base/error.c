/*
 * error.c: fills in an oort_error.  See error.h.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int32_t oort_fail(oort_error *error, int32_t code, int32_t sys_errno, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        error->code = code;
        error->sys_errno = sys_errno;
        va_start(arguments, format);
        (void)vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return code;
}
