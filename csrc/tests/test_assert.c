/*
 * test_assert.c: a broken invariant ends the process with a line that names the invariant.
 *
 * Each case breaks one invariant in a child process.  The child must die of SIGABRT, and its only
 * line on stderr must name the invariant.
 */
#include "base/assert.h"
#include "index/index_blocks.h"
#include "store/valuestore.h"
#include "tests/recovery_suite.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static directories at;

static fixture new_store(void)
{
    fixture f = in_directories(&at);
    open_store(&f);
    return f;
}

static struct valuestore *store_in(fixture *f)
{
    return valuestore_of(f->store);
}

static struct log_writer *writer_in(fixture *f)
{
    return &value_session_of(f->session)->writer;
}

static oort_index *new_index(void)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/index", at.base);
    oort_index *index = index_create(path, UINT64_C(64) << 20, NULL);
    CHECK(index != NULL);
    CHECK(index_insert(index, 1, 0, 1, 2) == OORT_OK);
    return index;
}

static void seek_first(oort_index *index, index_cursor *cursor)
{
    index_entry entry;
    index_seek(index, 1, 0, cursor);
    CHECK(index_next(index, cursor, &entry));
}

/* ---- the cases ------------------------------------------------------------- */

static void break_assertion(void)
{
    int one = 1;
    OORT_ASSERT(one == 1, "one is one");
    OORT_ASSERT(one == 2, "one is two");
}

static void break_long_text(void)
{
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    oort_assert_failed("file", 1, text);
}

static void insert_no_location(void)
{
    oort_index *index = new_index();
    index_cursor cursor;
    seek_first(index, &cursor);
    index_replace(index, &cursor, 0, 4);
}

static void use_cursor_before_next(void)
{
    oort_index *index = new_index();
    index_cursor cursor;
    index_seek(index, 1, 0, &cursor);
    index_replace(index, &cursor, 1, 4);
}

static void use_stale_cursor(void)
{
    oort_index *index = new_index();
    index_cursor first, second;
    seek_first(index, &first);
    seek_first(index, &second);
    index_erase(index, &first);
    index_erase(index, &second);
}

static void give_block_twice(void)
{
    char path[128];
    index_blocks blocks;
    uint32_t unit;
    (void)snprintf(path, sizeof path, "%s/index", at.base);
    CHECK(index_blocks_create(&blocks, path, UINT64_C(64) << 20, NULL) == OORT_OK);
    CHECK(index_blocks_take(&blocks, &unit, 1, NULL, 0) == OORT_OK);
    index_blocks_give(&blocks, &unit, 1, NULL, 0);
    index_blocks_give(&blocks, &unit, 1, NULL, 0);
}

static void read_without_lock(void)
{
    fixture f = new_store();
    oort_key key = named("key");
    oort_value value;
    (void)oort_read(f.session, &key, &value);
}

static void read_with_other_lock(void)
{
    fixture f = new_store();
    oort_key key = named("key"), others[2] = {named("foo"), named("bar")};
    oort_value value;
    CHECK(oort_lock(f.session, others, 2) == OORT_OK);
    (void)oort_read(f.session, &key, &value);
}

static void begin_batch_twice(void)
{
    fixture f = new_store();
    CHECK(oort_batch_begin(f.session, 1, 10) == OORT_OK);
    (void)oort_batch_begin(f.session, 1, 10);
}

static void commit_no_batch(void)
{
    fixture f = new_store();
    (void)oort_batch_commit(f.session);
}

static void unpin_twice(void)
{
    fixture f = new_store();
    oort_value value;
    CHECK(put_text(&f, named("key"), "value") == OORT_OK);
    oort_key key = named("key");
    CHECK(look(&f, &key, &value) == OORT_OK);
    oort_pin(f.session, &value);
    oort_value again = value;
    oort_unpin(f.store, &value);
    oort_unpin(f.store, &again);
}

static void wrap_stamp(void)
{
    fixture f = new_store();
    atomic_store(&store_in(&f)->checkpoint->highest_stamp, UINT64_MAX);
    oort_session_set_clock(f.session, 1);
    (void)put_text(&f, named("key"), "value");
}

static void lose_count(void)
{
    fixture f = new_store();
    CHECK(put_text(&f, named("key"), "value") == OORT_OK);
    atomic_store(&store_in(&f)->checkpoint->keys[0], 0);
    (void)drop(&f, named("key"));
}

static void append_to_others(void)
{
    fixture f = new_store();
    CHECK(put_text(&f, named("key"), "value") == OORT_OK);
    struct log_writer other;
    oort_error error;
    CHECK(vlog_writer_open(&store_in(&f)->log, &other, &error) == OORT_OK);
    vlog_append(&other, writer_in(&f)->active, 64);
}

static void append_beyond_end(void)
{
    fixture f = new_store();
    CHECK(put_text(&f, named("key"), "value") == OORT_OK);
    vlog_append(writer_in(&f), writer_in(&f)->active, writer_in(&f)->active->capacity);
}

static void lose_tail(void)
{
    fixture f = new_store();
    CHECK(put_text(&f, named("key"), "value") == OORT_OK);
    CHECK(oort_store_sync(f.store, NULL) == OORT_OK);
    atomic_store(&writer_in(&f)->active->tail, SEGMENT_HEADER_BYTES);
    (void)oort_store_sync(f.store, NULL);
}

static void free_pinned(void)
{
    fixture f = new_store();
    CHECK(put_text(&f, named("key"), "value") == OORT_OK);
    segment_pin(writer_in(&f)->active);
    close_store(&f);
}

/* ---- running them ---------------------------------------------------------- */

static void must_abort(void (*break_it)(void), const char *invariant)
{
    char said[4096] = "", wanted[600];
    size_t size = 0;
    int ends[2], status;
    directories_make(&at);
    CHECK(pipe(ends) == 0);
    (void)fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        CHECK(setrlimit(RLIMIT_CORE, &no_core) == 0);
        CHECK(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
        break_it();
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    for (ssize_t got; (got = read(ends[0], said + size, sizeof said - 1 - size)) > 0;)
        size += (size_t)got;
    said[size] = '\0';
    CHECK(close(ends[0]) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    (void)snprintf(wanted, sizeof wanted, ": %s\n", invariant);
    const char *found = strstr(said, wanted);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || found == NULL ||
        found[strlen(wanted)] != '\0' || strncmp(said, "oort: broken invariant at ", 26) != 0) {
        fprintf(stderr, "%s: status %#x, said: %s\n", invariant, (unsigned)status, said);
        exit(1);
    }
    directories_remove(&at);
}

int main(void)
{
    char cut[500];
    /* 512 bytes, less the end of the line and "oort: broken invariant at file:1: ". */
    memset(cut, 'x', sizeof cut);
    cut[512 - 2 - strlen("oort: broken invariant at file:1: ")] = '\0';
    must_abort(break_assertion, "one is two");
    must_abort(break_long_text, cut);
    must_abort(insert_no_location, "an index entry has a location");
    must_abort(use_cursor_before_next, "a cursor is used while it is at an entry");
    must_abort(use_stale_cursor, "a cursor is used while it is valid");
    must_abort(give_block_twice, "a block of the index is given back once");
    must_abort(read_without_lock, "the session holds the stripe of the key");
    must_abort(read_with_other_lock, "the session holds the stripe of the key");
    must_abort(begin_batch_twice, "a batch ends before the next one begins");
    must_abort(commit_no_batch, "a batch that is committed has begun");
    must_abort(unpin_twice, "a segment is unpinned as often as it was pinned");
    must_abort(wrap_stamp, "stamps only grow");
    must_abort(lose_count, "the number of keys is not negative");
    must_abort(append_to_others,
               "a writer appends to its own active segment, or the only record of a large one");
    must_abort(append_beyond_end, "the tail is aligned and not beyond the capacity");
    must_abort(lose_tail, "synced <= tail <= capacity");
    must_abort(free_pinned, "a segment that is freed has no pins");
    return 0;
}
