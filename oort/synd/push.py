"""Every node gets every new ring through its CmdCtrl, soon where it can be reached.

The leader's work.  Each node has a task of its own on the event loop; AT_A_TIME of them send at
once, TRIED_AT_A_TIME of them try nodes that did not answer the last time, so that these hold up
nobody.  A node that does not take the ring is asked again after a pause that doubles from
FIRST_PAUSE to LONGEST_PAUSE seconds, with jitter, at its addresses in turn; one that registers is
asked at once.  That a node does not take it is logged once, when SAID_AT tries have failed: one
that has just registered needs a moment before its CmdCtrl listens.  Where rings follow each other
fast a node gets one in PACE seconds.  Nobody who changes the ring waits for any of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from oort.cmdctrl import cmdctrl_pb2 as messages
from oort.errors import CallError
from oort.ring.ring import Node

from .keeper import Held
from .nodes import Nodes, called

AT_A_TIME = 64
TRIED_AT_A_TIME = 16
TRIED_SECONDS = 0.2  # that a try lasts at least: a thousand nodes that refuse take few of them
DEADLINE = 20.0  # seconds, of a call
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
PACE = 0.25
SAID_AT = 3  # tries in a row that failed: some 1.5 to 3 seconds
CLOSE_SECONDS = 2.0

log = logging.getLogger("synd.push")


class _Target:
    """A node, what it holds, and how it went."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.holds = 0  # the version it said it has
        self.attempt = 0  # which of its addresses is tried
        self.pause = 0.0
        self.failures = 0  # in a row
        self.tried = False  # and did not answer
        self.newer = asyncio.Event()  # there is a newer ring
        self.asked = asyncio.Event()  # it is to be tried before its pause is over
        self.task: asyncio.Task[None] | None = None


class Pusher:
    """Every method is the event loop's."""

    def __init__(self, name: str, nodes: Nodes) -> None:
        self._name = name
        self._nodes = nodes
        self._targets: dict[int, _Target] = {}
        self._held: Held | None = None
        self._active = False
        self._sending = asyncio.Semaphore(AT_A_TIME)
        self._trying = asyncio.Semaphore(TRIED_AT_A_TIME)

    def announce(self, held: Held) -> None:
        """This is the newest ring."""
        self._held = held
        before, self._targets = self._targets, {}
        for node in held.ring.nodes:
            target = before.pop(node.id, None) or _Target(node)
            if target.node.addresses != node.addresses:
                target.asked.set()
            target.node = node
            target.newer.set()
            self._targets[node.id] = target
        _cancel(before)
        self._run()

    def activate(self, active: bool) -> None:
        """Push, or leave it to another."""
        self._active = active
        if active:
            self._run()
        else:
            _cancel(self._targets)

    def registered(self, node_id: int) -> None:
        """That node is there."""
        target = self._targets.get(node_id)
        if target is not None:
            target.pause, target.tried = 0.0, False
            target.asked.set()

    def behind(self) -> int:
        """How many nodes are not known to have the newest ring."""
        version = self._held.version if self._held is not None else 0
        return sum(target.holds < version for target in self._targets.values())

    async def close(self) -> None:
        tasks = [target.task for target in self._targets.values() if target.task is not None]
        self.activate(False)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        if not self._active:
            return
        for target in self._targets.values():
            if target.task is None:
                target.holds = 0  # somebody else may have pushed meanwhile
                target.task = asyncio.create_task(self._follow(target))

    async def _follow(self, target: _Target) -> None:
        # gRPC may swallow a cancellation.
        while target.task is asyncio.current_task():
            target.newer.clear()
            held = self._held
            if held is None or target.holds >= held.version:
                await target.newer.wait()
                continue
            target.asked.clear()
            try:
                if target.tried:
                    async with self._trying:
                        await self._try(target)
                else:
                    async with self._sending:
                        await self._push(target)
                await asyncio.sleep(PACE)
            except CallError as error:
                self._failed(target, str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(
                        target.asked.wait(), target.pause * random.uniform(0.5, 1.0)
                    )
            except Exception:
                log.exception("%s: push to %s", self._name, called(target.node))
                await asyncio.sleep(LONGEST_PAUSE)

    async def _try(self, target: _Target) -> None:
        try:
            await self._push(target)
        except CallError:
            await asyncio.sleep(TRIED_SECONDS)
            raise

    async def _push(self, target: _Target) -> None:
        held = self._held
        if held is None:
            return
        reply = await self._nodes.call(
            target.node,
            "RingUpdate",
            messages.Ring(version=held.version, ring=held.data),
            DEADLINE,
            target.attempt,
        )
        target.holds = reply.newversion
        if target.holds < held.version:
            raise CallError(f"{called(target.node)} keeps version {target.holds}")
        target.pause, target.tried = 0.0, False
        log.debug("%s: %s has version %d", self._name, called(target.node), held.version)
        failures, target.failures = target.failures, 0
        if failures >= SAID_AT:
            log.info("%s: %s has the ring again", self._name, called(target.node))

    def _failed(self, target: _Target, why: str) -> None:
        target.attempt += 1
        target.tried = True
        target.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, target.pause * 2))
        target.failures += 1
        if target.failures == SAID_AT:
            log.warning(
                "%s: did not take the ring: %s; it is asked again and again", self._name, why
            )


def _cancel(targets: dict[int, _Target]) -> None:
    for target in targets.values():
        if target.task is not None:
            target.task.cancel()
            target.task = None
