/*
 * mapstore.c: the in-memory store.
 *
 * Every database has a table (maptable.h) for each of the 16384 cluster slots, made by its first
 * write. A stripe is a lock over 16 neighbouring slots of every database.  Stripes are always taken
 * in ascending order, which is also the order of SCAN.
 *
 * Only the expiry and the stamp of an entry can change.  An entry counts its references, so a
 * pinned value outlives its key.  An entry that a session unlinks stays readable until the session
 * unlocks.  A batch is applied immediately, under locks that keep other sessions out, and keeps an
 * undo list for abort.
 *
 * Nothing survives the process: sync succeeds at once, no ticket waits, and no read is cold.
 */
#include "mapstore/mapstore.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

map_table *map_table_of(map_store *store, uint8_t database, uint32_t slot, bool make)
{
    map_table *tables = atomic_load_explicit(&store->tables[database], memory_order_acquire);

    if (tables == NULL && make) {
        map_table *made = calloc(MAP_SLOTS, sizeof *made);
        if (made == NULL)
            return NULL;
        if (atomic_compare_exchange_strong(&store->tables[database], &tables, made))
            tables = made;
        else
            free(made);
    }
    return tables != NULL ? tables + slot : NULL;
}

/* ---- changes under the stripe's lock ------------------------------------- */

void map_exchange(map_store *store, map_table *table, map_entry *old, map_entry *entry)
{
    const map_entry *either = entry != NULL ? entry : old;
    map_counters *counters = &map_stripe_of(store, either->hash)->of[either->database];
    uint64_t bytes_before = maptable_bytes(table);
    OORT_ASSERT(old == NULL || (map_counted(&counters->keys) != 0 &&
                                map_counted(&counters->entry_bytes) >= map_entry_bytes(old)),
                "an entry of a table is counted");

    if (old != NULL && entry != NULL)
        maptable_replace(table, old, entry);
    else if (entry != NULL)
        maptable_put(table, entry);
    else
        maptable_take(table, old);
    map_count(&counters->keys, (uint64_t)((entry != NULL) - (old != NULL)));
    map_count(&counters->entry_bytes, (entry != NULL ? map_entry_bytes(entry) : 0) -
                                          (old != NULL ? map_entry_bytes(old) : 0));
    map_count(&counters->table_bytes, maptable_bytes(table) - bytes_before);
    if (entry != NULL && entry->expiry_ms != 0 && entry->expiry_ms < table->first_expiry_ms)
        table->first_expiry_ms = entry->expiry_ms;
}

static void retire(map_session *session, map_entry *entry)
{
    entry->next = session->retired;
    session->retired = entry;
}

void map_change(map_session *session, map_table *table, map_entry *old, map_entry *entry)
{
    bool old_expired = old != NULL && map_expired(old, session->base.now_us / 1000);

    map_exchange(map_store_of(session), table, old, entry);
    if (session->in_batch) {
        session->undos[session->undo_count++] =
            (map_undo){.old = old, .entry = entry, .expired = old_expired};
    } else if (old != NULL) {
        if (old_expired)
            metric_add(&session->base.store->metrics.expired_keys, 1);
        retire(session, old);
    }
}

static uint64_t next_stamp(map_session *session, uint64_t hash)
{
    map_stripe *stripe = map_stripe_of(map_store_of(session), hash);
    uint64_t stamp = (uint64_t)session->base.now_us << 8;

    if (session->base.now_us < 0 || stamp < stripe->last_stamp + 2)
        stamp = stripe->last_stamp + 2;
    stripe->last_stamp = stamp;
    return stamp;
}

static int32_t check_locked(map_session *session, const oort_key *key)
{
    uint32_t at = map_slot(key->hash) / MAP_SLOTS_A_STRIPE;

    if ((session->locked[at / 64] >> (at % 64) & 1) == 0)
        return oort_fail(&session->base.error, OORT_ERR_ARGUMENT, 0,
                         "the key is not locked: call oort_lock with it first");
    return OORT_OK;
}

static int32_t check_change(map_session *session, const oort_key *key)
{
    int32_t status = check_locked(session, key);

    if (status == OORT_OK && session->in_batch && session->undo_count == session->undo_capacity)
        status = oort_fail(&session->base.error, OORT_ERR_ARGUMENT, 0,
                           "the batch has more than the %u changes it was begun with",
                           session->undo_capacity);
    return status;
}

int32_t map_check_idle(map_session *session)
{
    if (session->holding)
        return oort_fail(&session->base.error, OORT_ERR_ARGUMENT, 0,
                         "the session holds locks: call oort_unlock first");
    return OORT_OK;
}

/* The live entry of a key, or NULL.  Removes an expired entry. */
static map_entry *find(map_session *session, const oort_key *key, map_table **table)
{
    map_entry *entry;

    *table = map_table_of(map_store_of(session), key->database, map_slot(key->hash), false);
    entry = *table != NULL ? maptable_find(*table, key) : NULL;
    if (entry != NULL && map_expired(entry, session->base.now_us / 1000)) {
        if (!session->in_batch)
            map_change(session, *table, entry, NULL);
        return NULL;
    }
    return entry;
}

/* ---- sessions ------------------------------------------------------------ */

static oort_session *session_open(oort_store *store, oort_error *error)
{
    map_session *session = calloc(1, sizeof *session);

    if (session == NULL) {
        (void)oort_fail(error, OORT_ERR_NOMEM, 0, "no memory for a session");
        return NULL;
    }
    session->base.store = store;
    oort_session_set_clock(&session->base, 0);
    if (getrandom(&session->random, sizeof session->random, GRND_NONBLOCK) < 0)
        session->random = (uint64_t)session->base.now_us;
    session->random |= 1;
    return &session->base;
}

static void session_close(oort_session *base)
{
    map_session *session = (map_session *)base;

    map_unlock(base);
    free(session->undos);
    free(session);
}

/* The fields of the table are not read, because they belong to the holder of the lock. */
static void prefetch(oort_session *base, const oort_key *keys, uint32_t count)
{
    map_store *store = (map_store *)base->store;

    for (uint32_t i = 0; i < count; i++) {
        map_table *table = map_table_of(store, keys[i].database, map_slot(keys[i].hash), false);

        __builtin_prefetch(map_stripe_of(store, keys[i].hash), 1);
        if (table != NULL)
            __builtin_prefetch(table, 1);
    }
}

int32_t map_lock(oort_session *base, const oort_key *keys, uint32_t key_count)
{
    map_session *session = (map_session *)base;
    int32_t status = map_check_idle(session);

    if (status != OORT_OK)
        return status;
    for (uint32_t i = 0; i < key_count; i++) {
        uint32_t at = map_slot(keys[i].hash) / MAP_SLOTS_A_STRIPE;
        session->locked[at / 64] |= UINT64_C(1) << (at % 64);
    }
    for (uint32_t word = 0; word < MAP_STRIPES / 64; word++)
        for (uint64_t bits = session->locked[word]; bits != 0; bits &= bits - 1)
            (void)pthread_mutex_lock(
                &map_store_of(session)->stripes[word * 64 + (uint32_t)__builtin_ctzll(bits)].mutex);
    session->holding = true;
    return OORT_OK;
}

static void batch_abort(oort_session *base);

void map_unlock(oort_session *base)
{
    map_session *session = (map_session *)base;
    map_entry *retired;

    if (!session->holding)
        return;
    if (session->in_batch)
        batch_abort(base);
    retired = session->retired;
    session->retired = NULL;
    for (uint32_t word = 0; word < MAP_STRIPES / 64; word++) {
        for (uint64_t bits = session->locked[word]; bits != 0; bits &= bits - 1)
            (void)pthread_mutex_unlock(
                &map_store_of(session)->stripes[word * 64 + (uint32_t)__builtin_ctzll(bits)].mutex);
        session->locked[word] = 0;
    }
    session->holding = false;
    while (retired != NULL) {
        map_entry *next = retired->next;
        map_release(retired);
        retired = next;
    }
}

/* ---- one key ------------------------------------------------------------- */

static int32_t read_value(oort_session *base, const oort_key *key, oort_value *out)
{
    map_session *session = (map_session *)base;
    int32_t status = check_locked(session, key);
    map_table *table;
    map_entry *entry;

    if (status != OORT_OK)
        return status;
    entry = find(session, key, &table);
    if (entry == NULL)
        return OORT_MISSING;
    *out = (oort_value){.data = entry->bytes,
                        .size = entry->value_size,
                        .expiry_ms = entry->expiry_ms,
                        .stamp = entry->stamp,
                        .stored_bytes = map_entry_bytes(entry) + sizeof(map_entry *)};
    return OORT_OK;
}

static map_entry *make_entry(const oort_key *key, const oort_bytes *parts, uint32_t part_count,
                             uint64_t value_size)
{
    map_entry *entry = malloc(offsetof(map_entry, bytes) + value_size + key->size);
    uint8_t *to;

    if (entry == NULL)
        return NULL;
    entry->next = NULL;
    entry->hash = key->hash;
    entry->value_size = (uint32_t)value_size;
    entry->key_size = key->size;
    entry->database = key->database;
    atomic_init(&entry->references, 1);
    to = entry->bytes;
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].size != 0)
            memcpy(to, parts[i].data, parts[i].size);
        to += parts[i].size;
    }
    if (key->size != 0)
        memcpy(to, key->data, key->size);
    return entry;
}

static int32_t write_value(oort_session *base, const oort_key *key, const oort_bytes *parts,
                           uint32_t part_count, int64_t expiry_ms)
{
    map_session *session = (map_session *)base;
    map_store *store = map_store_of(session);
    bool gone = expiry_ms != 0 && expiry_ms <= base->now_us / 1000;
    int32_t status = check_change(session, key);
    map_entry *entry = NULL;
    map_entry *old;
    map_table *table;
    uint64_t size = 0;

    if (status != OORT_OK)
        return status;
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].size > store->value_cap - size)
            return oort_fail(&base->error, OORT_ERR_TOO_BIG, 0,
                             "value is longer than %llu bytes (ValueCap)",
                             (unsigned long long)store->value_cap);
        size += parts[i].size;
    }
    if (session->in_batch) {
        if (size + key->size > session->batch_bytes)
            return oort_fail(&base->error, OORT_ERR_ARGUMENT, 0,
                             "the batch has more bytes than it was begun with");
        session->batch_bytes -= size + key->size;
    }
    table = map_table_of(store, key->database, map_slot(key->hash), !gone);
    old = table != NULL ? maptable_find(table, key) : NULL;
    if (!gone) {
        if (table == NULL || maptable_prepare(table) != OORT_OK ||
            (entry = make_entry(key, parts, part_count, size)) == NULL)
            return oort_fail(&base->error, OORT_ERR_NOMEM, 0, "no memory for a value of %llu bytes",
                             (unsigned long long)size);
        entry->expiry_ms = expiry_ms;
        entry->stamp = next_stamp(session, key->hash);
    }
    if (old != NULL || entry != NULL)
        map_change(session, table, old, entry);
    return OORT_OK;
}

static int32_t remove_key(oort_session *base, const oort_key *key)
{
    map_session *session = (map_session *)base;
    int32_t status = check_change(session, key);
    map_table *table;
    map_entry *entry;

    if (status != OORT_OK)
        return status;
    entry = find(session, key, &table);
    if (entry == NULL)
        return OORT_MISSING;
    (void)next_stamp(session, key->hash);
    map_change(session, table, entry, NULL);
    return OORT_OK;
}

static int32_t set_expiry(oort_session *base, const oort_key *key, int64_t expiry_ms)
{
    map_session *session = (map_session *)base;
    int32_t status = check_change(session, key);
    map_table *table;
    map_entry *entry;

    if (status != OORT_OK)
        return status;
    entry = find(session, key, &table);
    if (entry == NULL)
        return OORT_MISSING;
    if (expiry_ms != 0 && expiry_ms <= base->now_us / 1000) {
        (void)next_stamp(session, key->hash);
        map_change(session, table, entry, NULL);
        return OORT_OK;
    }
    if (session->in_batch)
        session->undos[session->undo_count++] = (map_undo){.entry = entry,
                                                           .expiry_ms = entry->expiry_ms,
                                                           .stamp = entry->stamp,
                                                           .expiry_only = true};
    entry->expiry_ms = expiry_ms;
    entry->stamp = next_stamp(session, key->hash);
    if (expiry_ms != 0 && expiry_ms < table->first_expiry_ms)
        table->first_expiry_ms = expiry_ms;
    return OORT_OK;
}

static map_entry *entry_of(const oort_value *value)
{
    return (map_entry *)(uintptr_t)(value->data - offsetof(map_entry, bytes));
}

static void pin(oort_session *base, oort_value *value)
{
    map_entry *entry = entry_of(value);

    (void)base;
    (void)atomic_fetch_add_explicit(&entry->references, 1, memory_order_relaxed);
    value->pin = entry;
}

static void unpin(oort_store *store, oort_value *value)
{
    (void)store;
    map_release(value->pin);
    value->pin = NULL;
}

/* ---- batches ------------------------------------------------------------- */

static int32_t batch_begin(oort_session *base, uint32_t changes, uint64_t bytes)
{
    map_session *session = (map_session *)base;

    if (!session->holding || session->in_batch)
        return oort_fail(&base->error, OORT_ERR_ARGUMENT, 0,
                         "a batch needs oort_lock, and the end of the batch before it");
    if (changes > session->undo_capacity || session->undos == NULL) {
        map_undo *undos = reallocarray(session->undos, (size_t)changes + 1, sizeof *undos);
        if (undos == NULL)
            return oort_fail(&base->error, OORT_ERR_NOMEM, 0, "no memory for a batch of %u changes",
                             changes);
        session->undos = undos;
    }
    session->undo_capacity = changes;
    session->undo_count = 0;
    session->batch_bytes = bytes;
    session->in_batch = true;
    return OORT_OK;
}

static void batch_end(map_session *session)
{
    /* The memory of a huge batch must not stay with the session. */
    free(session->undos);
    session->undos = NULL;
    session->undo_capacity = 0;
    session->undo_count = 0;
    session->in_batch = false;
}

static int32_t batch_commit(oort_session *base)
{
    map_session *session = (map_session *)base;

    if (!session->in_batch)
        return oort_fail(&base->error, OORT_ERR_ARGUMENT, 0, "no batch has begun");
    for (uint32_t i = 0; i < session->undo_count; i++) {
        map_undo *done = &session->undos[i];
        if (done->old == NULL)
            continue;
        if (done->expired)
            metric_add(&session->base.store->metrics.expired_keys, 1);
        retire(session, done->old);
    }
    batch_end(session);
    return OORT_OK;
}

static void batch_abort(oort_session *base)
{
    map_session *session = (map_session *)base;
    map_store *store = map_store_of(session);

    if (!session->in_batch)
        return;
    for (uint32_t i = session->undo_count; i-- > 0;) {
        map_undo *done = &session->undos[i];
        const map_entry *either = done->entry != NULL ? done->entry : done->old;
        map_table *table;
        if (done->expiry_only) {
            done->entry->expiry_ms = done->expiry_ms;
            done->entry->stamp = done->stamp;
            continue;
        }
        table = map_table_of(store, either->database, map_slot(either->hash), false);
        map_exchange(store, table, done->entry, done->old);
        if (done->entry != NULL)
            retire(session, done->entry);
    }
    batch_end(session);
}

/* ---- the store ----------------------------------------------------------- */

static int32_t close_store(oort_store *base, oort_error *error)
{
    map_store *store = (map_store *)base;

    (void)error;
    if (store->sweeping) {
        (void)pthread_mutex_lock(&store->stop_mutex);
        store->stop = true;
        (void)pthread_cond_signal(&store->stop_condition);
        (void)pthread_mutex_unlock(&store->stop_mutex);
        (void)pthread_join(store->sweeper, NULL);
    }
    for (uint8_t i = 0; i < OORT_DATABASES; i++)
        map_free_tables(atomic_load(&store->tables[i]));
    for (uint32_t i = 0; i < MAP_STRIPES; i++)
        (void)pthread_mutex_destroy(&store->stripes[i].mutex);
    (void)pthread_cond_destroy(&store->stop_condition);
    (void)pthread_mutex_destroy(&store->stop_mutex);
    if (store->event_fd >= 0)
        (void)close(store->event_fd);
    free(store);
    return OORT_OK;
}

static void measure(oort_store *base, struct store_reading *out)
{
    map_store *store = (map_store *)base;

    for (uint32_t i = 0; i < MAP_STRIPES; i++) {
        map_stripe *stripe = &store->stripes[i];
        for (uint8_t database = 0; database < OORT_DATABASES; database++) {
            map_counters *counters = &stripe->of[database];
            out->keys[database] += map_counted(&counters->keys);
            out->live_bytes += map_counted(&counters->entry_bytes);
            out->index_bytes += map_counted(&counters->table_bytes);
        }
    }
    out->log_bytes = out->live_bytes;
}

static int32_t set_fsync(oort_store *store, int32_t fsync)
{
    (void)store;
    (void)fsync;
    return OORT_OK;
}

static int32_t sync_store(oort_store *store, oort_error *error)
{
    (void)store;
    (void)error;
    return OORT_OK;
}

static int32_t compact(oort_store *store, uint32_t dead_percent, oort_error *error)
{
    (void)store;
    (void)dead_percent;
    (void)error;
    return OORT_OK;
}

static int32_t next_event(oort_store *store, oort_event *out)
{
    (void)store;
    (void)out;
    return 0;
}

static int event_fd(oort_store *store)
{
    return ((map_store *)store)->event_fd;
}

/* Nothing is ever synced, and no tickets are given out. */
static void request_sync(oort_store *store, uint64_t ticket)
{
    (void)store, (void)ticket;
}

static int32_t sync_here(oort_store *store, int eventfd)
{
    (void)store, (void)eventfd;
    return 0;
}

static uint32_t gather_ms(oort_store *store)
{
    (void)store;
    return 0;
}

static uint64_t synced(oort_store *store)
{
    (void)store;
    return 0;
}

static int32_t watch_sync(oort_store *store, int eventfd)
{
    (void)store;
    (void)eventfd;
    return OORT_OK;
}

static void unwatch_sync(oort_store *store, int eventfd)
{
    (void)store, (void)eventfd;
}

static int32_t behind(oort_store *store)
{
    (void)store;
    return 0;
}

static int32_t fetch(oort_store *store, oort_cold cold)
{
    (void)store;
    (void)cold;
    return OORT_ERR_ARGUMENT;
}

static uint64_t ticket(oort_session *session)
{
    (void)session;
    return 0;
}

static const struct oort_store_ops map_store_ops = {
    .name = "mapstore",
    .close = close_store,
    .measure = measure,
    .set_fsync = set_fsync,
    .sync = sync_store,
    .compact = compact,
    .next_event = next_event,
    .event_fd = event_fd,
    .request_sync = request_sync,
    .sync_here = sync_here,
    .gather_ms = gather_ms,
    .synced = synced,
    .watch_sync = watch_sync,
    .unwatch_sync = unwatch_sync,
    .behind = behind,
    .fetch = fetch,
    .unpin = unpin,
    .session_open = session_open,
    .session_close = session_close,
    .prefetch = prefetch,
    .lock = map_lock,
    .unlock = map_unlock,
    .read = read_value,
    .look = read_value,
    .write = write_value,
    .remove = remove_key,
    .set_expiry = set_expiry,
    .batch_begin = batch_begin,
    .batch_commit = batch_commit,
    .batch_abort = batch_abort,
    .pin = pin,
    .ticket = ticket,
    .flush = map_flush,
    .scan = map_scan,
    .random_key = map_random_key,
};

oort_store *oort_mapstore_open(const oort_store_config *config, oort_error *error)
{
    map_store *store;
    pthread_condattr_t monotonic;

    if (config->value_cap > OORT_VALUE_CAP) {
        (void)oort_fail(error, OORT_ERR_ARGUMENT, 0, "ValueCap is above %d bytes", OORT_VALUE_CAP);
        return NULL;
    }
    if (posix_memalign((void **)&store, _Alignof(map_store), sizeof *store) != 0) {
        (void)oort_fail(error, OORT_ERR_NOMEM, 0, "no memory for the store");
        return NULL;
    }
    memset(store, 0, sizeof *store);
    store->base.ops = &map_store_ops;
    store->value_cap = config->value_cap != 0 ? config->value_cap : OORT_VALUE_CAP;
    for (uint32_t i = 0; i < MAP_STRIPES; i++)
        (void)pthread_mutex_init(&store->stripes[i].mutex, NULL);
    (void)pthread_mutex_init(&store->stop_mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&store->stop_condition, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    store->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (store->event_fd < 0) {
        int failed = errno;
        (void)close_store(&store->base, NULL);
        (void)oort_fail(error, OORT_ERR_IO, failed, "cannot make an eventfd: %s",
                        strerrordesc_np(failed));
        return NULL;
    }
    if (config->background != 0) {
        int failed = pthread_create(&store->sweeper, NULL, map_sweep_main, store);
        if (failed != 0) {
            (void)close_store(&store->base, NULL);
            (void)oort_fail(error, OORT_ERR_NOMEM, failed, "cannot start the expiry thread: %s",
                            strerrordesc_np(failed));
            return NULL;
        }
        store->sweeping = true;
    }
    return &store->base;
}
