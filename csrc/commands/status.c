/*
 * status.c: the error reply for each status of the store.  The data path and Python
 * (oort/store/check.py) both use these texts.
 */
#include <stdio.h>

#include "oort.h"

static const char *fixed_text(int32_t status)
{
    switch (status) {
    case OORT_ERR_FULL:
        return "MISCONF oort is read-only: the disk is below its free-space watermark; free space "
               "and writes resume by themselves";
    case OORT_ERR_FAILED:
        return "MISCONF oort no longer writes: a disk error was final; check the disk, then "
               "restart oortd";
    case OORT_ERR_DAMAGED:
        return "ERR the record of this key is damaged: its checksum does not match; the log of "
               "oortd says where";
    case OORT_ERR_NOMEM:
        return "OOM oort could not allocate the memory for this command";
    case OORT_ERR_TOO_BIG:
        return "ERR key, value or batch is larger than the store takes";
    default:
        return NULL;
    }
}

void oort_status_error(int32_t status, const char *detail, char *out, uint64_t size)
{
    const char *fixed = fixed_text(status);
    if (fixed != NULL) {
        (void)snprintf(out, size, "%s", fixed);
    } else {
        (void)snprintf(out, size, "%s: %s",
                       status == OORT_ERR_IO ? "MISCONF a disk error" : "ERR the store failed",
                       detail);
    }
}
