/*
 * commands_hot.h: the handlers of the hot commands, one for each HOT row of commands.def.
 *
 * A handler is called with the arity checked; see commands.h for what it may return.
 */
#ifndef OORT_COMMANDS_HOT_H
#define OORT_COMMANDS_HOT_H

#include "commands/commands.h"

#define HOT(id, ...) int32_t command_##id(struct oort_call *call);
#define COLD(id, ...)
#include "commands/commands.def"
#undef HOT
#undef COLD

#endif
