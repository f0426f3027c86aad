/*
 * files.h: how the value log's files are named, and the errors of working with them.
 *
 * A segment's files are named after its sequence number in 16 hexadecimal digits: .log holds the
 * records, .toc the table of contents of a sealed segment, .toc.new a table being written.
 */
#ifndef OORT_LOG_FILES_H
#define OORT_LOG_FILES_H

#include "oort.h"

#define SEGMENT_NAME_BYTES 40 /* enough for every name and its NUL */

void segment_name(char name[SEGMENT_NAME_BYTES], uint64_t sequence, const char *suffix);
/* Fill an error from errno: the segment could not do `what`.  Returns the code: full, memory, or
 * I/O, which is final. */
int32_t segment_failure(oort_error *error, const char *what, uint64_t sequence);
/* The same for a sync that failed: final whatever errno says, because the kernel reports a failed
 * write once and has dropped the pages. */
int32_t segment_sync_failure(oort_error *error, const char *what, uint64_t sequence);

#endif
