/*
 * files.h: the names of the value log's files and the errors of their use.
 *
 * The files of a segment are named after its sequence number in 16 hexadecimal digits: .log holds
 * the records, .toc the table of contents of a sealed segment, .toc.new an unfinished table.
 */
#ifndef OORT_LOG_FILES_H
#define OORT_LOG_FILES_H

#include "oort.h"

#define SEGMENT_NAME_BYTES 40 /* enough for every name and its NUL */

void segment_name(char name[SEGMENT_NAME_BYTES], uint64_t sequence, const char *suffix);
/* Fills an error from errno: the action `what` failed on the segment.  Returns the code:
 * OORT_ERR_FULL, OORT_ERR_NOMEM, or OORT_ERR_IO, which is final. */
int32_t segment_failure(oort_error *error, const char *what, uint64_t sequence);
/* Fills an error for a failed sync.  The error is final whatever errno says, because the kernel
 * reports a failed write once and has dropped the pages. */
int32_t segment_sync_failure(oort_error *error, const char *what, uint64_t sequence);

#endif
