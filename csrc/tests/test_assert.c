/*
 * test_assert.c: a broken invariant ends the process with one line that names it; an invariant that
 * holds does nothing.
 */
#include "base/assert.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void child(int out, int count)
{
    CHECK(dup2(out, STDERR_FILENO) == STDERR_FILENO);
    OORT_ASSERT(count > 0, "there is something to count");
    OORT_ASSERT(count > 1, "two are needed");
    exit(0);
}

/* Runs the child and returns how it ended; text: what it wrote to stderr. */
static int run(int count, char *text, size_t capacity)
{
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0)
        child(ends[1], count);
    CHECK(close(ends[1]) == 0);
    size_t size = 0;
    for (ssize_t got; (got = read(ends[0], text + size, capacity - 1 - size)) > 0;)
        size += (size_t)got;
    text[size] = '\0';
    CHECK(close(ends[0]) == 0);
    CHECK(waitpid(process, &status, 0) == process);
    return status;
}

int main(void)
{
    char text[1024];

    int status = run(2, text, sizeof text);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && text[0] == '\0');
    status = run(1, text, sizeof text);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strncmp(text, __FILE__, strlen(__FILE__)) == 0);
    CHECK(strstr(text, ": broken invariant: two are needed\n") != NULL);
    CHECK(strchr(text, '\n') == text + strlen(text) - 1);
    return 0;
}
