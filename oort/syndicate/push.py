"""Every node gets every new ring through its CmdCtrl, soon where it can be reached.

One thread decides, gRPC's own do the waiting: at most AT_A_TIME calls are under way, each with a
deadline.  A node that does not take the ring is asked again after a pause that doubles from
FIRST_PAUSE to LONGEST_PAUSE seconds, with jitter; a newer ring replaces the one it was to get, and
is tried at once.  Nobody who changes the ring waits for any of this.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from oort.cmdctrl import cmdctrl_pb2 as messages
from oort.cmdctrl.cmdctrl_pb2_grpc import CmdCtrlStub
from oort.errors import OortError
from oort.ring.ring import Node

from .keeper import Held
from .nodes import NodeChannels

AT_A_TIME = 64
DEADLINE = 20.0  # seconds, of a call
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

log = logging.getLogger("synd.push")


@dataclass
class _Target:
    node: Node
    holds: int = 0  # the version it said it has
    calling: bool = False
    due: float = 0.0  # on the monotonic clock
    pause: float = 0.0
    reported: bool = False  # that it cannot be reached


class Pusher:
    """Pushes while it is told to: the leader's work."""

    def __init__(self, name: str, channels: NodeChannels) -> None:
        self._name = name
        self._channels = channels
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._targets: dict[int, _Target] = {}
        self._held: Held | None = None
        self._active = False
        self._calling = 0
        self._thread = threading.Thread(target=self._run, name=f"{name}-push", daemon=True)
        self._thread.start()

    def announce(self, held: Held) -> None:
        """Thread safe: this is the newest ring."""
        self._events.put(partial(self._take, held))

    def activate(self, active: bool) -> None:
        """Thread safe: push, or leave it to another."""
        self._events.put(partial(self._activate, active))

    def close(self) -> None:
        self._events.put(None)
        self._thread.join()

    # ---- the thread -------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=self._pause())
            except queue.Empty:
                event = _nothing
            if event is None:
                return
            event()
            self._begin()

    def _pause(self) -> float | None:
        """Until the next is due; None: nothing is."""
        if not self._active or self._calling >= AT_A_TIME:
            return None
        due = [target.due for target in self._targets.values() if self._wants(target)]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _wants(self, target: _Target) -> bool:
        return self._held is not None and not target.calling and target.holds < self._held.version

    def _take(self, held: Held) -> None:
        if self._held is not None and held.version <= self._held.version:
            return
        self._held = held
        before, self._targets = self._targets, {}
        for node in held.ring.nodes:
            target = before.get(node.id) or _Target(node)
            if target.node.addresses != node.addresses:
                target.pause = 0.0
            target.node = node
            target.due = 0.0
            self._targets[node.id] = target

    def _activate(self, active: bool) -> None:
        if active and not self._active:
            for target in self._targets.values():
                target.holds, target.due, target.pause = 0, 0.0, 0.0
        self._active = active

    def _begin(self) -> None:
        now = time.monotonic()
        if not self._active or self._held is None:
            return
        for target in self._targets.values():
            if self._calling >= AT_A_TIME:
                return
            if self._wants(target) and target.due <= now:
                self._call(target, self._held)

    def _call(self, target: _Target, held: Held) -> None:
        try:
            channel = self._channels.open(target.node)
        except OortError as error:
            self._failed(target, str(error))
            return
        target.calling = True
        self._calling += 1
        call = CmdCtrlStub(channel).RingUpdate.future(
            messages.Ring(version=held.version, ring=held.data), timeout=DEADLINE
        )
        call.add_done_callback(
            lambda call: self._events.put(partial(self._answered, target, held, channel, call))
        )

    def _answered(self, target: _Target, held: Held, channel: grpc.Channel, call: Any) -> None:
        target.calling = False
        self._calling -= 1
        try:
            target.holds = call.result().newversion
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.Call) else ""
            self._failed(
                target, f"{code} {' '.join(str(getattr(error, 'details', str)()).split())}"
            )
        else:
            if target.holds >= held.version:
                target.pause = 0.0
                if target.reported:
                    target.reported = False
                    log.info("%s: %s has the ring again", self._name, _called(target.node))
            else:
                self._failed(target, f"it keeps version {target.holds}")
        finally:
            channel.close()

    def _failed(self, target: _Target, why: str) -> None:
        target.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, target.pause * 2))
        target.due = time.monotonic() + target.pause * random.uniform(0.5, 1.0)
        if not target.reported:
            target.reported = True
            log.warning(
                "%s: %s did not take the ring (%s); it is asked again and again",
                self._name,
                _called(target.node),
                why.strip(),
            )


def _nothing() -> None:
    """Time has passed."""


def _called(node: Node) -> str:
    return f"node {node.id} ({node.meta or 'no name'})"
