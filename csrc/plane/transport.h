/*
 * transport.h: how a connection's bytes move: the only calls on its descriptor except for epoll's.
 *
 * A plain socket is one such table; TLS and a simulated network are others.  epoll (worker.c,
 * plane.c) still watches the descriptor, so every transport has a descriptor that becomes readable
 * and writable.
 */
#ifndef OORT_TRANSPORT_H
#define OORT_TRANSPORT_H

#include <sys/types.h>
#include <sys/uio.h>

#include "oort.h"

struct conn;

struct oort_transport {
    /* Prepare conn->fd, which must not block from then on. */
    void (*open)(struct conn *conn);
    /* As recv and sendmsg: -1 and errno, with EAGAIN for "not now".  They never raise SIGPIPE. */
    ssize_t (*recv)(struct conn *conn, void *data, size_t size);
    ssize_t (*send)(struct conn *conn, const struct iovec *parts, int count);
    /* Tell the peer that nothing more will be sent.  0, or -1: the connection is broken. */
    int (*shutdown)(struct conn *conn);
    /* Close conn->fd. */
    void (*close)(struct conn *conn);
};

extern const oort_transport oort_plain_transport;

#endif
