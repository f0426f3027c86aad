/*
 * transport.c: plain TCP and Unix sockets.  See transport.h.
 */
#include "plane/transport.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plane/conn.h"

static void plain_open(struct conn *conn)
{
    int status = fcntl(conn->fd, F_GETFL);
    int on = 1;

    if (status >= 0 && (status & O_NONBLOCK) == 0)
        (void)fcntl(conn->fd, F_SETFL, status | O_NONBLOCK);
    if ((conn->flags & OORT_CONN_UNIX) == 0)
        (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static ssize_t plain_recv(struct conn *conn, void *data, size_t size)
{
    return recv(conn->fd, data, size, MSG_DONTWAIT);
}

static ssize_t plain_send(struct conn *conn, const struct iovec *parts, int count)
{
    if (count == 1)
        return send(conn->fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int plain_shutdown(struct conn *conn)
{
    return shutdown(conn->fd, SHUT_WR);
}

static void plain_close(struct conn *conn)
{
    (void)close(conn->fd);
}

const oort_transport oort_plain_transport = {.open = plain_open,
                                             .recv = plain_recv,
                                             .send = plain_send,
                                             .shutdown = plain_shutdown,
                                             .close = plain_close};
