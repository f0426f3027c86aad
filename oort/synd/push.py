"""The leader pushes every new ring to every node's CmdCtrl.

Each node has a task on the event loop.  At most AT_A_TIME tasks send at the same time, and at most
TRIED_AT_A_TIME of the nodes that did not answer the last time, so that they do not delay others.
If a node does not take the ring, the task tries again after a pause, which doubles from FIRST_PAUSE
to LONGEST_PAUSE seconds, with jitter, at the node's addresses in turn.  A node that registers is
tried at once.  After SAID_AT failures in a row a warning is logged once.  (A node that has just
registered needs a moment before its CmdCtrl listens.)  If rings follow each other fast, a node gets
at most one ring in PACE seconds.  No change of the ring waits for the pushes.
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
TRIED_SECONDS = 0.2  # minimum duration of a failed retry, which limits the rate of retries
DEADLINE = 20.0  # seconds for a call
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
PACE = 0.25
SAID_AT = 3  # failures in a row, which take about 1.5 to 3 seconds
CLOSE_SECONDS = 2.0

log = logging.getLogger("synd.push")


class _Target:
    """A node, its version, and the state of its pushes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.holds = 0  # the version that the node reported
        self.attempt = 0  # selects the address
        self.pause = 0.0  # seconds
        self.failures = 0  # in a row
        self.tried = False  # whether the last push failed
        self.newer = asyncio.Event()  # set when there is a newer ring
        self.asked = asyncio.Event()  # set to end a pause early
        self.task: asyncio.Task[None] | None = None


class Pusher:
    """Pushes rings to nodes.  Methods must be called on the event loop."""

    def __init__(self, name: str, nodes: Nodes) -> None:
        self._name = name
        self._nodes = nodes
        self._targets: dict[int, _Target] = {}
        self._held: Held | None = None
        self._active = False
        self._sending = asyncio.Semaphore(AT_A_TIME)
        self._trying = asyncio.Semaphore(TRIED_AT_A_TIME)

    def announce(self, held: Held) -> None:
        """Push this ring, which is the newest."""
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
        """Begin or stop pushing; only the leader pushes."""
        self._active = active
        if active:
            self._run()
        else:
            _cancel(self._targets)

    def registered(self, node_id: int) -> None:
        """Push to this node at once, because it has registered."""
        target = self._targets.get(node_id)
        if target is not None:
            target.pause, target.tried = 0.0, False
            target.asked.set()

    def behind(self) -> int:
        """The number of nodes that are not known to have the newest ring."""
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
                target.holds = 0  # unknown, because another synd may have pushed meanwhile
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
            log.warning("%s: a node did not take the ring: %s; synd keeps trying", self._name, why)


def _cancel(targets: dict[int, _Target]) -> None:
    for target in targets.values():
        if target.task is not None:
            target.task.cancel()
            target.task = None
