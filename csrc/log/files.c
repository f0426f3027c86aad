/*
 * files.c: the names of the value log's files and the errors of their use.  See files.h.
 */
#include "log/files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

void segment_name(char name[SEGMENT_NAME_BYTES], uint64_t sequence, const char *suffix)
{
    (void)snprintf(name, SEGMENT_NAME_BYTES, "%016" PRIx64 ".%s", sequence, suffix);
}

int32_t segment_failure(oort_error *error, const char *what, uint64_t sequence)
{
    int saved = errno;
    if (saved == ENOSPC || saved == EDQUOT || saved == EFBIG)
        return oort_fail(error, OORT_ERR_FULL, saved,
                         "segment %016" PRIx64 ".log: no space to %s; free disk space", sequence,
                         what);
    /* A lack of memory, mappings or descriptors passes.  An error of the disk is final. */
    bool passes = saved == ENOMEM || saved == EMFILE || saved == ENFILE || saved == EAGAIN;
    return oort_fail(error, passes ? OORT_ERR_NOMEM : OORT_ERR_IO, saved,
                     "segment %016" PRIx64 ".log: cannot %s: %s", sequence, what, strerror(saved));
}

int32_t segment_sync_failure(oort_error *error, const char *what, uint64_t sequence)
{
    return oort_fail(error, OORT_ERR_IO, errno, "segment %016" PRIx64 ".log: cannot sync %s: %s",
                     sequence, what, strerror(errno));
}
