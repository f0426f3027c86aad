"""The executor: executes the commands that the data plane hands to Python, and sends the replies.

Handlers run on the main loop and return an outcome (oort/commands/dispatch.py).  The executor
carries out the outcome.  Jobs run on the helper thread, between start() and stop().
"""

from __future__ import annotations

from collections.abc import Callable
from types import GeneratorType
from typing import Any

from oort.commands import dispatch
from oort.commands.context import Context
from oort.commands.dispatch import Answer, Background, Job, Later, Outcome, Stop
from oort.commands.handlers import ALL
from oort.commands.reply import error
from oort.daemon.jobs import Jobs, Timed
from oort.daemon.loop import Loop
from oort.dataplane import DataPlane, Reply, Request
from oort.errors import OortError, StoreError
from oort.journal import log
from oort.store import client_error

REQUEST_BATCH = 256  # the most commands executed in one turn of the main loop
INTERNAL_ERROR = b"-ERR internal error, see the server's log\r\n"


class Executor:
    def __init__(self, context: Context, loop: Loop, stop: Callable[[str], None]) -> None:
        """stop(reason): ends the process."""
        self._context = context
        self._loop = loop
        self._stop = stop
        self._jobs = Jobs(context.session.close)

    def start(self) -> None:
        self._jobs.start()

    def stop(self) -> None:
        """End the helper thread after its present slice, and close the session."""
        self._jobs.stop()

    def restart(self) -> None:
        """Start the helper thread again after stop(), with the context's new session."""
        self._jobs = Jobs(self._context.session.close)
        self._jobs.start()

    def take_requests(self) -> None:
        """Execute the waiting requests, at most REQUEST_BATCH of them."""
        plane = self._context.plane
        for _ in range(REQUEST_BATCH):
            request = plane.next_request()
            if request is None:
                break
            self._execute(plane, request)
        self._context.forget(plane.closed())

    def _execute(self, plane: DataPlane, request: Request) -> None:
        context = self._context
        client = context.clients.get(request.connection)
        if client is None:
            return  # the connection was closed meanwhile
        name, handler = dispatch.find(ALL, request)
        begin = context.clock.monotonic()
        try:
            outcome = handler(context, request)
        except OortError as failure:
            outcome = _failure(failure)
        except Exception:
            log.exception("command %s failed", name)
            outcome = INTERNAL_ERROR
        if not isinstance(outcome, GeneratorType):
            plane.add_time(request.command, context.clock.monotonic() - begin)
        self._act(plane, request, name, outcome)

    def _act(self, plane: DataPlane, request: Request, name: str, outcome: Outcome) -> None:
        if isinstance(outcome, GeneratorType):
            timed = Timed(outcome, self._context.clock)

            def done(result: Answer | Exception) -> None:
                if plane is self._context.plane:
                    plane.add_time(request.command, timed.seconds)
                self._finished(plane, request, name, result)

            self._run(timed.job(), done)
        elif isinstance(outcome, Later):
            plane.reply_later(request.connection, outcome.reply, outcome.seconds)
        elif isinstance(outcome, Background):
            self._run(outcome.job, outcome.done)
            self._answer(plane, request, outcome.reply)
        elif isinstance(outcome, Stop):
            self._stop(outcome.reason)
        elif isinstance(outcome, bytes | Reply):
            self._answer(plane, request, outcome)

    def _run(self, job: Job[Any], done: Callable[[Any], None]) -> None:
        """Run a job on the helper thread; done(result or exception) runs on the main loop."""
        call = self._loop.call_soon_from_thread
        self._jobs.submit(job, lambda result: call(lambda: done(result)))

    def _finished(
        self, plane: DataPlane, request: Request, name: str, result: Answer | Exception
    ) -> None:
        if isinstance(result, OortError):
            result = _failure(result)
        elif isinstance(result, Exception):
            log.error("command %s failed", name, exc_info=result)
            result = INTERNAL_ERROR
        self._answer(plane, request, result)

    def _answer(self, plane: DataPlane, request: Request, answer: Answer) -> None:
        reply = Reply(answer) if isinstance(answer, bytes) else answer
        if plane is not self._context.plane:
            return  # a Stop or Restart has closed the connection
        plane.reply(request.connection, reply)


def _failure(failure: OortError) -> bytes:
    """An error reply.  For a store's error it is the reply of the data path to the same status."""
    if isinstance(failure, StoreError):
        return error(client_error(failure))
    return error(f"ERR {failure}")
