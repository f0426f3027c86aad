/*
 * connect.c: opens a connection of the load generator: connect, AUTH, SELECT.  Each command waits
 * for the reply to the one before (contract: link.h).
 */
#include "load/link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define HANDSHAKE_SECONDS 10

static bool send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Sends one command of the handshake and reads its reply of one line.  False: why holds the
 * reason. */
static bool ask(int fd, const char *const *argv, uint32_t argc, char *why, size_t why_size)
{
    char text[2048];
    int used = snprintf(text, sizeof text, "*%u\r\n", argc);
    for (uint32_t i = 0; i < argc; i++) {
        used += snprintf(text + used, sizeof text - (size_t)used, "$%zu\r\n%s\r\n", strlen(argv[i]),
                         argv[i]);
        if (used < 0 || (size_t)used >= sizeof text) {
            snprintf(why, why_size, "%s: the credentials are too long", argv[0]);
            return false;
        }
    }
    if (!send_all(fd, text, (size_t)used)) {
        snprintf(why, why_size, "%s: %s", argv[0], strerror(errno));
        return false;
    }
    size_t got = 0;
    while (got < sizeof text - 1 && (got == 0 || text[got - 1] != '\n')) {
        ssize_t size = recv(fd, text + got, 1, 0);
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0) {
            snprintf(why, why_size, "%s: %s", argv[0],
                     size == 0 ? "the server closed the connection" : strerror(errno));
            return false;
        }
        got++;
    }
    text[got] = '\0';
    if (text[0] == '+')
        return true;
    text[strcspn(text, "\r\n")] = '\0';
    snprintf(why, why_size, "%s: %.300s", argv[0], text);
    return false;
}

static bool greet(int fd, const oort_load_config *config, char *why, size_t why_size)
{
    if (config->password != NULL) {
        const char *argv[3] = {"AUTH", config->password, NULL};
        if (config->username != NULL) {
            argv[1] = config->username;
            argv[2] = config->password;
        }
        if (!ask(fd, argv, config->username != NULL ? 3 : 2, why, why_size))
            return false;
    }
    if (config->database != 0) {
        char number[16];
        snprintf(number, sizeof number, "%u", (unsigned)config->database);
        const char *argv[2] = {"SELECT", number};
        return ask(fd, argv, 2, why, why_size);
    }
    return true;
}

int load_connect(const oort_load_config *config, const struct addrinfo *address, oort_error *error)
{
    char why[400] = "";
    struct timeval patience = {.tv_sec = HANDSHAKE_SECONDS};
    int one = 1;
    int fd = -1;
    for (; address != NULL && fd < 0; address = address->ai_next) {
        fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
                        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
                        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
                        connect(fd, address->ai_addr, address->ai_addrlen) != 0)) {
            error->sys_errno = errno;
            snprintf(why, sizeof why, "%s",
                     errno == EINPROGRESS ? "no answer in time" : strerror(errno));
            close(fd);
            fd = -1;
        } else if (fd < 0) {
            error->sys_errno = errno;
            snprintf(why, sizeof why, "%s", strerror(errno));
        }
    }
    if (fd >= 0 && !greet(fd, config, why, sizeof why)) {
        close(fd);
        fd = -1;
    }
    if (fd < 0) {
        error->code = OORT_ERR_IO;
        snprintf(error->text, sizeof error->text, "cannot connect to %.60s port %u: %s",
                 config->host, (unsigned)config->port, why);
    }
    return fd;
}
