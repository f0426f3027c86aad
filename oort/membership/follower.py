"""Following the ring while oortd serves: a stream of rings from one of the syndicate's hosts.

A connection that says nothing may be dead, so that the host is asked for its version every
PULSE_SECONDS.  When it is lost the syndicate is looked for anew, all of its hosts in their order,
after a pause that doubles from FIRST_PAUSE to LONGEST_PAUSE seconds, with jitter.  With each
connection the node registers again: its addresses may be others.  One that was taken out of its
ring does not: that was somebody's will.

A configuration may come with the wish that nodes are restarted with it: that is asked for, logged
and shown, and left to the operator.

A node without any syndicate serves on.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import grpc

from oort.clock import SYSTEM, Clock
from oort.errors import CallError, OortError
from oort.journal import log
from oort.membership.link import Link, Seeker
from oort.membership.membership import Membership
from oort.syndicate.connection import call_error, parse_address

PULSE_SECONDS = 15.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
RENEWAL_PAUSE = 3600.0  # between two
CLOSE_SECONDS = 2.0


class Follower:
    def __init__(self, seeker: Seeker, link: Link | None, clock: Clock = SYSTEM) -> None:
        """link: the one over which the node has registered; None: none answered."""
        self._seeker = seeker
        self._link = link
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""
        self._renew_at = 0.0
        self._heeded = b""  # configuration of the ring
        self._ended = threading.Event()  # what is followed has ended, or is to end

    def start(self, membership: Membership) -> None:
        # A daemon: in a call that hangs it must not keep the process.
        self._thread = threading.Thread(
            target=self._run, args=(membership,), name="ring-follower", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._ended.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        elif self._link is not None:
            self._link.close()

    # ---- the thread ---------------------------------------------------------------

    def _run(self, membership: Membership) -> None:
        while not self._stop.is_set():
            try:
                self._run_on(membership)
            except Exception:
                # A fault here must not leave the node without rings until it is restarted.
                log.exception("following the ring failed; beginning anew")
                membership.lost()
                self._stop.wait(LONGEST_PAUSE)

    def _run_on(self, membership: Membership) -> None:
        link, self._link = self._link, None
        self._heeded = membership.configuration.ring
        if link is not None:
            membership.found(link.server)
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            if link is None:
                link = self._connect(membership)
            if link is not None:
                since = self._clock.monotonic()
                try:
                    self._follow(link, membership)
                finally:
                    link.close()
                    link = None
                membership.lost()
                if self._clock.monotonic() - since > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
            self._stop.wait(pause * random.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE, pause * 2)

    def _connect(self, membership: Membership) -> Link | None:
        try:
            if not membership.member:
                link = self._seeker.connect()
                membership.found(link.server)
            else:
                link, registered = self._seeker.register()
                try:
                    membership.registered(
                        link.server, registered.local_id, registered.ring, registered.data
                    )
                except BaseException:
                    link.close()
                    raise
        except OortError as error:
            membership.lost()
            if str(error) != self._said:
                log.warning("no syndicate answers: %s; serving on, and asking again", error)
            self._said = str(error)
            return None
        self._said = ""
        log.info("syndicate %s answers", link.server)
        return link

    def _follow(self, link: Link, membership: Membership) -> None:
        """Until the connection is lost, or oortd stops."""
        state = membership.state
        assert state is not None
        ended = self._ended = threading.Event()
        reasons: list[str] = []
        call = link.stream(state.local_id)
        listener = threading.Thread(
            target=self._listen,
            args=(link, call, membership, ended, reasons),
            name="ring-stream",
            daemon=True,
        )
        listener.start()
        try:
            self._renew(link, membership)
            # In this order: close() sets the one, then the other.
            while not (ended.is_set() or self._stop.is_set() or ended.wait(PULSE_SECONDS)):
                if link.version() > state.version:
                    newest = link.ring()
                    state.update(newest.version, newest.ring)
                self._heed(link, membership)
                membership.in_touch()
                self._renew(link, membership)
        except OortError as error:
            reasons.insert(0, str(error))
        finally:
            ended.set()
            call.cancel()
            listener.join(CLOSE_SECONDS)
        if not self._stop.is_set():
            reason = reasons[0] if reasons else "it has ended the connection"
            log.warning(
                "syndicate %s is lost: %s; serving on, and asking again", link.server, reason
            )

    def _listen(
        self,
        link: Link,
        call: Any,
        membership: Membership,
        ended: threading.Event,
        reasons: list[str],
    ) -> None:
        state = membership.state
        assert state is not None
        refused = False
        try:
            for ring in call:
                state.update(ring.version, ring.ring)
                self._heed(link, membership)
        except OortError as error:
            reasons.append(str(error))
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                log.info("syndicate %s: %s; asking it now and then", link.server, error.details())
                refused = True  # the pulse finds what is new
            reasons.append(str(call_error(link.server, error)))
        except Exception:
            if not ended.is_set():  # else the connection was closed under it
                log.exception("following the ring failed; beginning anew")
        finally:
            if not refused:
                ended.set()

    def _heed(self, link: Link, membership: Membership) -> None:
        conf = membership.configuration.ring
        if conf != self._heeded:
            try:
                asks = link.asks_for_restart(conf)
            except CallError as error:
                if error.unreachable:
                    raise  # it is asked for over the next connection
                log.warning("whether the ring's configuration asks for a restart: %s", error)
                asks = False
            self._heeded = conf
            if asks:
                membership.ask_for_restart()

    def _renew(self, link: Link, membership: Membership) -> None:
        """The syndicate calls this node at the addresses that the ring has of it."""
        if self._clock.monotonic() < self._renew_at:
            return
        ring = membership.ring
        node = ring.local_node if ring is not None else None
        try:
            needed = {parse_address(one, "ring")[0] for one in (node.addresses if node else ())}
            if link.renew(self._seeker.joining, needed):
                self._renew_at = self._clock.monotonic() + RENEWAL_PAUSE
        except OortError as error:
            self._renew_at = self._clock.monotonic() + RENEWAL_PAUSE
            log.warning("the certificate was not renewed: %s", error)
