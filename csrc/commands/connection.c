/*
 * connection.c: the native commands without keys: PING and ECHO.
 */
#include "commands/handler.h"
#include "commands/handlers.h"

int32_t command_ping(struct oort_call *call)
{
    if (call->argc > 2) {
        return call_wrong_arguments(call);
    }
    if (call->argc == 1) {
        reply_simple(call->output, "PONG");
    } else {
        reply_bulk(call->output, call->argv[1].data, call->argv[1].size);
    }
    return OORT_OK;
}

int32_t command_echo(struct oort_call *call)
{
    reply_bulk(call->output, call->argv[1].data, call->argv[1].size);
    return OORT_OK;
}
