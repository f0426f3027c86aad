/*
 * test_commands.c: the native commands over the in-memory store, reply by reply, in RESP2 and
 * RESP3.  Also over a store that fails at each call in turn: a command that meets a cold record
 * leaves no trace and succeeds when it is repeated, and a command that meets an error replies with
 * that error only.
 */
#include "commands/table.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#define NOW_US INT64_C(1700000000000000)
#define VALUE_CAP 536870912u

/* ---- a store that fails when told to, over another one ------------------- */

struct faulty_store {
    struct oort_store store;
    oort_store *inner;
};

struct faulty_session {
    struct oort_session session;
    oort_session *inner;
    int32_t countdown; /* the number of the call that fails, from 1; 0: no call */
    int32_t status;    /* the result of that call */
    bool failed;       /* that call was made */
    bool batch;        /* a batch is open */
};

static struct faulty_session *faulty(oort_session *session)
{
    return (struct faulty_session *)session;
}

static bool fails(struct faulty_session *self)
{
    if (self->countdown == 0 || --self->countdown > 0) {
        return false;
    }
    self->failed = true;
    return true;
}

static int32_t faulty_lock(oort_session *session, const oort_key *keys, uint32_t count)
{
    oort_session_set_clock(faulty(session)->inner, session->now_us);
    return oort_lock(faulty(session)->inner, keys, count);
}

static void faulty_unlock(oort_session *session)
{
    oort_unlock(faulty(session)->inner);
}

static int32_t faulty_read(oort_session *session, const oort_key *key, oort_value *out)
{
    struct faulty_session *self = faulty(session);
    return fails(self) ? self->status : oort_read(self->inner, key, out);
}

static int32_t faulty_look(oort_session *session, const oort_key *key, oort_value *out)
{
    struct faulty_session *self = faulty(session);
    return fails(self) ? self->status : oort_look(self->inner, key, out);
}

static int32_t faulty_write(oort_session *session, const oort_key *key, const oort_bytes *parts,
                            uint32_t part_count, int64_t expiry_ms)
{
    struct faulty_session *self = faulty(session);
    return fails(self) ? self->status : oort_write(self->inner, key, parts, part_count, expiry_ms);
}

static int32_t faulty_remove(oort_session *session, const oort_key *key)
{
    struct faulty_session *self = faulty(session);
    return fails(self) ? self->status : oort_remove(self->inner, key);
}

static int32_t faulty_set_expiry(oort_session *session, const oort_key *key, int64_t expiry_ms)
{
    struct faulty_session *self = faulty(session);
    return fails(self) ? self->status : oort_set_expiry(self->inner, key, expiry_ms);
}

static int32_t faulty_batch_begin(oort_session *session, uint32_t count, uint64_t bytes)
{
    struct faulty_session *self = faulty(session);
    if (fails(self)) {
        return self->status;
    }
    self->batch = true;
    return oort_batch_begin(self->inner, count, bytes);
}

static int32_t faulty_batch_commit(oort_session *session)
{
    faulty(session)->batch = false;
    return oort_batch_commit(faulty(session)->inner);
}

static void faulty_batch_abort(oort_session *session)
{
    faulty(session)->batch = false;
    oort_batch_abort(faulty(session)->inner);
}

static void faulty_pin(oort_session *session, oort_value *value)
{
    oort_pin(faulty(session)->inner, value);
}

static void faulty_unpin(oort_store *store, oort_value *value)
{
    oort_unpin(((struct faulty_store *)store)->inner, value);
}

static int32_t faulty_fetch(oort_store *store, oort_cold cold)
{
    (void)store;
    (void)cold;
    return OORT_OK;
}

static const struct oort_store_ops faulty_ops = {
    .name = "faulty",
    .lock = faulty_lock,
    .unlock = faulty_unlock,
    .read = faulty_read,
    .look = faulty_look,
    .write = faulty_write,
    .remove = faulty_remove,
    .set_expiry = faulty_set_expiry,
    .batch_begin = faulty_batch_begin,
    .batch_commit = faulty_batch_commit,
    .batch_abort = faulty_batch_abort,
    .pin = faulty_pin,
    .unpin = faulty_unpin,
    .fetch = faulty_fetch,
};

/* ---- running lines ------------------------------------------------------ */

struct world {
    oort_store *inner;
    struct faulty_store store;
    struct faulty_session session;
    struct oort_output output;
    uint64_t value_cap;
    uint64_t hits, misses;
    uint8_t protocol;
    bool failed, rejected;
    bool anonymous;
    bool writes_wait; /* not authenticated */
};

static int open_world(struct world *world)
{
    oort_error error;
    oort_store_config config = {0};
    memset(world, 0, sizeof(*world));
    world->inner = oort_mapstore_open(&config, &error);
    CHECK(world->inner != NULL);
    world->store.store.ops = &faulty_ops;
    world->store.inner = world->inner;
    world->session.session.store = &world->store.store;
    world->session.session.now_us = NOW_US;
    world->session.inner = oort_session_open(world->inner, &error);
    CHECK(world->session.inner != NULL);
    world->protocol = 2;
    world->value_cap = VALUE_CAP;
    return 0;
}

static int close_world(struct world *world)
{
    oort_error error;
    output_drop_pins(&world->output, 0);
    output_free(&world->output);
    oort_session_close(world->session.inner);
    CHECK(oort_store_close(world->inner, &error) == OORT_OK);
    return 0;
}

/* Executes one inline request and appends its reply to the output.  Returns the result of
 * oort_execute, or -1. */
static int32_t run(struct world *world, const char *line)
{
    struct resp_limits limits = {.bulk_cap = VALUE_CAP, .authenticated = true};
    struct resp_parser parser;
    size_t size = strlen(line);
    uint8_t *data = malloc(size + 1);
    if (data == NULL) {
        return -1;
    }
    memcpy(data, line, size);
    data[size] = '\n';
    resp_parser_init(&parser);
    int32_t result = -1;
    if (resp_parse(&parser, data, size + 1, &limits) == RESP_REQUEST && parser.argc > 0) {
        uint32_t first_key;
        struct oort_call call = {
            .session = &world->session.session,
            .argv = parser.argv,
            .argc = parser.argc,
            .flags = world->anonymous ? 0 : OORT_CONN_AUTHENTICATED,
            .output = &world->output,
            .value_cap = world->value_cap,
            .protocol = world->protocol,
            .command = command_resolve(parser.argv, parser.argc, &first_key),
            .writes_wait = world->writes_wait,
        };
        result = oort_execute(&call);
        world->hits += call.hits;
        world->misses += call.misses;
        world->failed = call.failed;
        world->rejected = call.rejected;
    }
    resp_parser_free(&parser);
    free(data);
    return result;
}

static void clear(struct world *world)
{
    output_drop_pins(&world->output, 0);
    world->output.size = 0;
}

static int expect(struct world *world, const char *line, const char *reply)
{
    clear(world);
    int32_t result = run(world, line);
    const struct oort_output *output = &world->output;
    if (result != OORT_CALL_DONE || output->size != strlen(reply) ||
        memcmp(output->data, reply, output->size) != 0) {
        fprintf(stderr, "%s: returned %d, replied '%.*s', not '%s'\n", line, result,
                (int)output->size, (const char *)output->data, reply);
        return 1;
    }
    return 0;
}

/* ---- replies ------------------------------------------------------------ */

#define NIL "$-1\r\n"
#define OK "+OK\r\n"
#define NOT_INTEGER "-ERR value is not an integer or out of range\r\n"
#define SYNTAX "-ERR syntax error\r\n"
#define BAD_TIME(name) "-ERR invalid expire time in '" name "' command\r\n"
#define ARITY(name) "-ERR wrong number of arguments for '" name "' command\r\n"

static const struct step {
    const char *line;
    const char *reply;
} steps[] = {
    {"PING", "+PONG\r\n"},
    {"ping hi", "$2\r\nhi\r\n"},
    {"PING a b", ARITY("ping")},
    {"ECHO \"a\\r\\nb\"", "$4\r\na\r\nb\r\n"},
    {"GET", ARITY("get")},
    {"GET a b", ARITY("get")},
    {"foo a \"b\\r\\n\"", "-ERR unknown command 'foo', with args beginning with: 'a' 'b  ' \r\n"},
    {"client|id", "-ERR unknown command 'client|id', with args beginning with: \r\n"},
    {"CLIENT", ARITY("client")},
    {"DBSIZE x", ARITY("dbsize")},

    {"GET k", NIL},
    {"SET k v", OK},
    {"get k", "$1\r\nv\r\n"},
    {"SET k \"\"", OK},
    {"GET k", "$0\r\n\r\n"},
    {"SET k w NX", NIL},
    {"SET k w XX", OK},
    {"SET n w XX", NIL},
    {"SET k x NX GET", "$1\r\nw\r\n"},
    {"GET k", "$1\r\nw\r\n"},
    {"SET n x NX GET", NIL},
    {"GET n", "$1\r\nx\r\n"},
    {"SET n y XX GET", "$1\r\nx\r\n"},
    {"SET k v NX XX", SYNTAX},
    {"SET k v EX", SYNTAX},
    {"SET k v EX 1 PX 1", SYNTAX},
    {"SET k v KEEPTTL EX 1", SYNTAX},
    {"SET k v PERSIST", SYNTAX},
    {"SET k v EX 0", BAD_TIME("set")},
    {"SET k v PX -1", BAD_TIME("set")},
    {"SET k v EX 9223372036854776", BAD_TIME("set")},
    {"SET k v PX 9223372036854775807", BAD_TIME("set")},
    {"SET k v EX x", NOT_INTEGER},
    {"SET k v EX 100", OK},
    {"TTL k", ":100\r\n"},
    {"PTTL k", ":100000\r\n"},
    {"EXPIRETIME k", ":1700000100\r\n"},
    {"PEXPIRETIME k", ":1700000100000\r\n"},
    {"SET k v KEEPTTL", OK},
    {"TTL k", ":100\r\n"},
    {"SET k v", OK},
    {"TTL k", ":-1\r\n"},
    {"SET k v PX 1500", OK},
    {"TTL k", ":2\r\n"},
    {"SET k v PX 1499", OK},
    {"TTL k", ":1\r\n"},
    {"SET k v EXAT 1700000010", OK},
    {"TTL k", ":10\r\n"},
    {"SET k v PXAT 1700000020000", OK},
    {"TTL k", ":20\r\n"},
    {"SET k v EXAT 1", OK},
    {"GET k", NIL},
    {"TTL k", ":-2\r\n"},
    {"PEXPIRETIME k", ":-2\r\n"},
    {"SETEX k 10 v", OK},
    {"TTL k", ":10\r\n"},
    {"PSETEX k 5000 v", OK},
    {"PTTL k", ":5000\r\n"},
    {"SETEX k 0 v", BAD_TIME("setex")},
    {"PSETEX k -5 v", BAD_TIME("psetex")},
    {"SETEX k x v", NOT_INTEGER},
    {"SETNX k w", ":0\r\n"},
    {"DEL k n", ":2\r\n"},
    {"SETNX k w", ":1\r\n"},
    {"GETSET k a", "$1\r\nw\r\n"},
    {"GETSET n a", NIL},
    {"GETDEL n", "$1\r\na\r\n"},
    {"GETDEL n", NIL},
    {"STRLEN k", ":1\r\n"},
    {"STRLEN n", ":0\r\n"},

    {"GETEX k", "$1\r\na\r\n"},
    {"GETEX k EX 50", "$1\r\na\r\n"},
    {"TTL k", ":50\r\n"},
    {"GETEX k PERSIST", "$1\r\na\r\n"},
    {"TTL k", ":-1\r\n"},
    {"GETEX k EX 0", BAD_TIME("getex")},
    {"GETEX n EX 0", NIL},
    {"GETEX k NX", SYNTAX},
    {"GETEX k PERSIST EX 1", SYNTAX},
    {"GETEX k EXAT 1", "$1\r\na\r\n"},
    {"EXISTS k", ":0\r\n"},

    {"MSET a 1 b 2 a 3", OK},
    {"MGET a b n a", "*4\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n$1\r\n3\r\n"},
    {"MSET a 1 b", ARITY("mset")},
    {"MSETNX a 1 c", ARITY("msetnx")},
    {"MSETNX c 1 a 2", ":0\r\n"},
    {"EXISTS c a a", ":2\r\n"},
    {"MSETNX c 1 d 2", ":1\r\n"},
    {"TOUCH c d e", ":2\r\n"},
    {"UNLINK c c d", ":2\r\n"},
    {"DEL a b", ":2\r\n"},
    {"MGET a b", "*2\r\n$-1\r\n$-1\r\n"},

    {"APPEND s ab", ":2\r\n"},
    {"EXPIRE s 100", ":1\r\n"},
    {"APPEND s cd", ":4\r\n"},
    {"TTL s", ":100\r\n"},
    {"GET s", "$4\r\nabcd\r\n"},
    {"GETRANGE s 1 2", "$2\r\nbc\r\n"},
    {"GETRANGE s -2 -1", "$2\r\ncd\r\n"},
    {"GETRANGE s -1 -2", "$0\r\n\r\n"},
    {"GETRANGE s -99 99", "$4\r\nabcd\r\n"},
    {"GETRANGE n 0 -1", "$0\r\n\r\n"},
    {"GETRANGE s 9223372036854775807 -9223372036854775808", "$0\r\n\r\n"},
    {"SETRANGE s 2 XYZ", ":5\r\n"},
    {"GET s", "$5\r\nabXYZ\r\n"},
    {"SETRANGE s 0 q", ":5\r\n"},
    {"GET s", "$5\r\nqbXYZ\r\n"},
    {"TTL s", ":100\r\n"},
    {"SETRANGE s -1 q", "-ERR offset is out of range\r\n"},
    {"SETRANGE n 5 \"\"", ":0\r\n"},
    {"EXISTS n", ":0\r\n"},
    {"SETRANGE z 3 q", ":4\r\n"},
    {"STRLEN z", ":4\r\n"},
    {"GETRANGE z 3 3", "$1\r\nq\r\n"},
    {"SETRANGE z 536870912 q", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"},
    {"SETRANGE z 9223372036854775807 q",
     "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"},

    {"INCR i", ":1\r\n"},
    {"INCRBY i 41", ":42\r\n"},
    {"DECR i", ":41\r\n"},
    {"DECRBY i 50", ":-9\r\n"},
    {"EXPIRE i 100", ":1\r\n"},
    {"INCR i", ":-8\r\n"},
    {"TTL i", ":100\r\n"},
    {"INCRBY i x", NOT_INTEGER},
    {"INCR s", NOT_INTEGER},
    {"SET i 9223372036854775807", OK},
    {"INCR i", "-ERR increment or decrement would overflow\r\n"},
    {"DECRBY i -1", "-ERR increment or decrement would overflow\r\n"},
    {"DECRBY i -9223372036854775808", "-ERR decrement would overflow\r\n"},
    {"SET i -9223372036854775808", OK},
    {"DECR i", "-ERR increment or decrement would overflow\r\n"},
    {"SET i 007", OK},
    {"INCR i", NOT_INTEGER},
    {"SET i 10.5", OK},
    {"INCRBYFLOAT i 0.1", "$4\r\n10.6\r\n"},
    {"INCRBYFLOAT i -10.6", "$1\r\n0\r\n"},
    {"INCRBYFLOAT i 5e3", "$4\r\n5000\r\n"},
    {"INCRBYFLOAT i x", "-ERR value is not a valid float\r\n"},
    {"INCRBYFLOAT i inf", "-ERR increment would produce NaN or Infinity\r\n"},

    {"SET e v", OK},
    {"EXPIRE e 10 XX", ":0\r\n"},
    {"EXPIRE e 10 GT", ":0\r\n"},
    {"EXPIRE e 10 LT", ":1\r\n"},
    {"EXPIRE e 10 NX", ":0\r\n"},
    {"EXPIRE e 20 gt", ":1\r\n"},
    {"EXPIRE e 15 GT", ":0\r\n"},
    {"PEXPIRE e 15000 LT", ":1\r\n"},
    {"PTTL e", ":15000\r\n"},
    {"EXPIREAT e 1700000030 XX", ":1\r\n"},
    {"TTL e", ":30\r\n"},
    {"PEXPIREAT e 1700000040000", ":1\r\n"},
    {"TTL e", ":40\r\n"},
    {"EXPIRE e 1 NX XX",
     "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n"},
    {"EXPIRE e 1 GT LT", "-ERR GT and LT options at the same time are not compatible\r\n"},
    {"EXPIRE e 1 \"q\\n\"", "-ERR Unsupported option q\r\n"},
    {"EXPIRE e x", NOT_INTEGER},
    {"EXPIRE e 9223372036854776", BAD_TIME("expire")},
    {"EXPIRE e -9223372036854776", BAD_TIME("expire")},
    {"PEXPIRE e 9223372036854775807", BAD_TIME("pexpire")},
    {"EXPIRE n 1", ":0\r\n"},
    {"PERSIST e", ":1\r\n"},
    {"PERSIST e", ":0\r\n"},
    {"PERSIST n", ":0\r\n"},
    {"TTL e", ":-1\r\n"},
    {"TYPE e", "+string\r\n"},
    {"EXPIRE e -1", ":1\r\n"},
    {"TYPE e", "+none\r\n"},
};

static int test_replies(void)
{
    struct world world;
    CHECK(open_world(&world) == 0);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        CHECK(expect(&world, steps[i].line, steps[i].reply) == 0);
    }
    world.protocol = 3;
    CHECK(expect(&world, "GET n", "_\r\n") == 0);
    CHECK(expect(&world, "SET n x XX", "_\r\n") == 0);
    CHECK(expect(&world, "MGET n s", "*2\r\n_\r\n$5\r\nqbXYZ\r\n") == 0);
    return close_world(&world);
}

static int test_time_passes(void)
{
    struct world world;
    CHECK(open_world(&world) == 0);
    CHECK(expect(&world, "SET k v PX 1500", OK) == 0);
    world.session.session.now_us = NOW_US + 1499000;
    CHECK(expect(&world, "PTTL k", ":1\r\n") == 0);
    world.session.session.now_us = NOW_US + 1501000;
    CHECK(expect(&world, "EXISTS k", ":0\r\n") == 0);
    CHECK(expect(&world, "SETNX k w", ":1\r\n") == 0);
    return close_world(&world);
}

/* Which clients may run which commands, what is counted, and which commands are not executed
 * here. */
static int test_checks(void)
{
    struct world world;
    CHECK(open_world(&world) == 0);
    CHECK(run(&world, "SELECT 1") == OORT_CALL_PYTHON);
    CHECK(run(&world, "client Id") == OORT_CALL_PYTHON && world.output.size == 0);
    CHECK(expect(&world, "CLIENT NOSUCH x",
                 "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n") == 0);
    CHECK(world.rejected && !world.failed);
    CHECK(expect(&world, "CLIENT", ARITY("client")) == 0);
    CHECK(expect(&world, "CLIENT ID x", ARITY("client|id")) == 0);
    CHECK(run(&world, "COMMAND") == OORT_CALL_PYTHON);
    world.writes_wait = true;
    CHECK(run(&world, "SET k v") == OORT_CALL_LATER && run(&world, "FLUSHALL") == OORT_CALL_LATER);
    CHECK(expect(&world, "GET k", NIL) == 0 && expect(&world, "SET k", ARITY("set")) == 0);
    world.writes_wait = false;
    CHECK(expect(&world, "INCRBY k x", NOT_INTEGER) == 0 && world.failed && !world.rejected);
    CHECK(expect(&world, "GET", ARITY("get")) == 0 && world.rejected && !world.failed);
    world.hits = world.misses = 0;
    CHECK(expect(&world, "SET k v", OK) == 0 && expect(&world, "GET k", "$1\r\nv\r\n") == 0);
    CHECK(expect(&world, "EXISTS k n n", ":1\r\n") == 0);
    CHECK(world.hits == 2 && world.misses == 2);
    world.anonymous = true;
    CHECK(expect(&world, "GET k", "-NOAUTH Authentication required.\r\n") == 0);
    CHECK(world.rejected);
    CHECK(expect(&world, "SELECT 1", "-NOAUTH Authentication required.\r\n") == 0);
    clear(&world);
    CHECK(run(&world, "AUTH x") == OORT_CALL_PYTHON && run(&world, "HELLO") == OORT_CALL_PYTHON);
    CHECK(run(&world, "QUIT") == OORT_CALL_PYTHON && run(&world, "RESET") == OORT_CALL_PYTHON);
    return close_world(&world);
}

/* Large values are sent by reference and keep the bytes that were read while the key changes.  Long
 * keys are refused. */
static int test_sizes(void)
{
    struct world world;
    char key[OORT_KEY_CAP + 1];
    CHECK(open_world(&world) == 0);
    CHECK(expect(&world, "SETRANGE big 99999 x", ":100000\r\n") == 0);
    CHECK(expect(&world, "GET big", "$100000\r\n\r\n") == 0);
    CHECK(world.output.pin_count == 1 && world.output.pins[0].offset == strlen("$100000\r\n"));
    CHECK(run(&world, "SET big small GET") == OORT_CALL_DONE && world.output.pin_count == 2);
    CHECK(run(&world, "DEL big") == OORT_CALL_DONE);
    for (uint32_t i = 0; i < 2; i++) {
        const struct pinned_bytes *value = &world.output.pins[i].bytes;
        CHECK(value->size == 100000 && value->data[99999] == 'x' && value->data[0] == 0);
    }
    world.value_cap = 4;
    CHECK(expect(&world, "APPEND k abcd", ":4\r\n") == 0);
    CHECK(expect(&world, "APPEND k e",
                 "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n") == 0);
    memset(key, 'k', sizeof(key));
    oort_bytes argv[2] = {{(const uint8_t *)"GET", 3}, {(const uint8_t *)key, OORT_KEY_CAP}};
    uint32_t first_key;
    struct oort_call call = {.session = &world.session.session,
                             .argv = argv,
                             .argc = 2,
                             .flags = OORT_CONN_AUTHENTICATED,
                             .output = &world.output,
                             .value_cap = VALUE_CAP,
                             .protocol = 2,
                             .command = command_resolve(argv, 2, &first_key)};
    clear(&world);
    CHECK(oort_execute(&call) == OORT_CALL_DONE && !call.failed);
    CHECK(world.output.size == strlen(NIL));
    argv[1].size++;
    clear(&world);
    CHECK(oort_execute(&call) == OORT_CALL_DONE && call.failed);
    CHECK(memcmp(world.output.data, "-ERR key is longer than 65536 bytes\r\n", 37) == 0);
    return close_world(&world);
}

/* ---- failures ----------------------------------------------------------- */

static const char *const prepared[] = {"MSET a 1 b 2 c 3", "SET t 5 EX 100",
                                       "SETRANGE big 99999 x"};
static const char *const state = "MGET a b c d t";
static const char *const victims[] = {
    "GET a",          "MGET a d b",        "MGET big big a",   "SET a x",
    "SET a x GET",    "SET a x XX",        "SET big x GET",    "SET d x NX",
    "SETNX d x",      "SETEX a 10 x",      "GETSET a x",       "GETDEL a",
    "GETDEL big",     "GETEX a EX 10",     "GETEX t PERSIST",  "STRLEN a",
    "GETRANGE a 0 0", "SETRANGE a 3 x",    "APPEND a x",       "INCR a",
    "DECRBY a 2",     "INCRBYFLOAT a 1.5", "MSET a x b y d z", "MSETNX d x e y",
    "DEL a",          "DEL a b d c",       "EXISTS a b d",     "TTL t",
    "TYPE a",         "EXPIRE a 10",       "EXPIREAT a 1",     "PERSIST t",
};

static int prepare(struct world *world)
{
    CHECK(open_world(world) == 0);
    for (size_t i = 0; i < sizeof(prepared) / sizeof(prepared[0]); i++) {
        CHECK(run(world, prepared[i]) == OORT_CALL_DONE);
    }
    clear(world);
    return 0;
}

static int32_t run_failing(struct world *world, const char *line, int32_t at, int32_t status)
{
    world->session.countdown = at;
    world->session.status = status;
    world->session.failed = false;
    int32_t result = run(world, line);
    world->session.countdown = 0;
    return result;
}

/* Appends the content of the keys to `out`. */
static int remember(struct world *world, struct oort_output *out)
{
    CHECK(run(world, state) == OORT_CALL_DONE);
    CHECK(run(world, "TTL a") == OORT_CALL_DONE && run(world, "TTL t") == OORT_CALL_DONE);
    output_append(out, world->output.data, world->output.size);
    clear(world);
    return 0;
}

/* Runs the command and lets its at-th store call fail.  Repeats the command if it met a cold
 * record. *reached: there was such a call. */
static int check_failure(const char *line, int32_t at, int32_t status, bool *reached)
{
    struct world undisturbed;
    struct world disturbed;
    struct oort_output before = {0};
    struct oort_output expected = {0};
    struct oort_output after = {0};
    CHECK(prepare(&undisturbed) == 0 && prepare(&disturbed) == 0);
    CHECK(remember(&undisturbed, &before) == 0);
    undisturbed.hits = undisturbed.misses = 0;
    CHECK(run(&undisturbed, line) == OORT_CALL_DONE);
    uint64_t hits = undisturbed.hits;
    uint32_t pins = undisturbed.output.pin_count;
    CHECK(remember(&undisturbed, &expected) == 0);

    output_append(&disturbed.output, "earlier", 7);
    int32_t result = run_failing(&disturbed, line, at, status);
    *reached = disturbed.session.failed;
    CHECK(!disturbed.session.batch);
    if (result == OORT_CALL_COLD) {
        CHECK(status == OORT_COLD && disturbed.output.size == 7 && disturbed.output.pin_count == 0);
        CHECK(run(&disturbed, line) == OORT_CALL_DONE);
    }
    CHECK(result != OORT_CALL_PYTHON);
    CHECK(disturbed.output.size >= 7 && memcmp(disturbed.output.data, "earlier", 7) == 0);
    if (status == OORT_COLD || !*reached) {
        CHECK(disturbed.hits == hits && disturbed.output.pin_count == pins);
        disturbed.output.size -= 7;
        memmove(disturbed.output.data, disturbed.output.data + 7, disturbed.output.size);
        CHECK(remember(&disturbed, &after) == 0);
        CHECK(after.size == expected.size && memcmp(after.data, expected.data, after.size) == 0);
    } else {
        CHECK(disturbed.failed && disturbed.output.pin_count == 0);
        const char *code = status == OORT_ERR_FULL ? "-MISCONF oort is read-only"
                           : status == OORT_ERR_IO ? "-MISCONF a disk error: "
                                                   : "-ERR ";
        CHECK(memcmp(disturbed.output.data + 7, code, strlen(code)) == 0);
        uint8_t *end = memchr(disturbed.output.data + 7, '\n', disturbed.output.size - 7);
        CHECK(end == disturbed.output.data + disturbed.output.size - 1);
        clear(&disturbed);
        CHECK(remember(&disturbed, &after) == 0);
        /* DEL of several keys is no transaction: the keys before the error are gone. */
        CHECK(strcmp(line, "DEL a b d c") == 0 ||
              (after.size == before.size && memcmp(after.data, before.data, after.size) == 0));
    }
    output_free(&before);
    output_free(&expected);
    output_free(&after);
    return close_world(&undisturbed) || close_world(&disturbed);
}

static int test_failures(void)
{
    static const int32_t statuses[] = {OORT_COLD, OORT_ERR_FULL, OORT_ERR_IO, OORT_ERR_DAMAGED};
    for (size_t i = 0; i < sizeof(victims) / sizeof(victims[0]); i++) {
        for (size_t j = 0; j < sizeof(statuses) / sizeof(statuses[0]); j++) {
            bool reached = true;
            int32_t at = 1;
            for (; reached; at++) {
                if (check_failure(victims[i], at, statuses[j], &reached) != 0) {
                    fprintf(stderr, "%s, call %d, status %d\n", victims[i], at, statuses[j]);
                    return 1;
                }
            }
            CHECK(at > 2);
        }
    }
    return 0;
}

int main(void)
{
    return test_replies() || test_time_passes() || test_checks() || test_sizes() || test_failures();
}
