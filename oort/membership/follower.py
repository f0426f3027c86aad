"""Following the ring while oortd serves: a stream of rings from one host of the syndicate.

A silent connection may be dead.  The follower therefore asks the host for its version every
PULSE_SECONDS.  After a lost connection the follower tries all hosts of the syndicate in order.  It
pauses between two attempts.  The pause doubles from FIRST_PAUSE to LONGEST_PAUSE seconds, with
jitter.  The node registers again over each connection, because its addresses may have changed.  A
node that was removed from its ring does not register, because somebody removed it on purpose.

The syndicate may ask for a restart of the nodes with a configuration.  The follower asks the
syndicate whether it does.  oortd logs and shows the request, and leaves the restart to the
operator.

A node without a syndicate goes on serving.
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
RENEWAL_PAUSE = 3600.0  # between two renewals of the certificate
CLOSE_SECONDS = 2.0


class Follower:
    def __init__(self, seeker: Seeker, link: Link | None, clock: Clock = SYSTEM) -> None:
        """link: the link over which the node has registered; None: no syndicate answered."""
        self._seeker = seeker
        self._link = link
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._logged_failure = ""
        self._renew_at = 0.0
        self._checked_conf = b""  # the last configuration that _check_restart() asked about
        self._ended = threading.Event()  # the present link has failed, or must end

    def start(self, membership: Membership) -> None:
        # A daemon thread, because a call that hangs must not keep the process from ending.
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
                # A bug must not leave the node without new rings until its next restart.
                log.exception("following the ring failed; trying again")
                membership.lost()
                self._stop.wait(LONGEST_PAUSE)

    def _run_on(self, membership: Membership) -> None:
        link, self._link = self._link, None
        self._checked_conf = membership.configuration.ring
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
            if str(error) != self._logged_failure:
                log.warning(
                    "no syndicate answers: %s; this node goes on serving and asks again", error
                )
            self._logged_failure = str(error)
            return None
        self._logged_failure = ""
        log.info("syndicate %s answers", link.server)
        return link

    def _follow(self, link: Link, membership: Membership) -> None:
        """Follow the ring until the connection is lost or oortd stops."""
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
            # close() sets _stop before _ended, so test them in the reverse order.
            while not (ended.is_set() or self._stop.is_set() or ended.wait(PULSE_SECONDS)):
                if link.version() > state.version:
                    newest = link.ring()
                    state.update(newest.version, newest.ring)
                self._check_restart(link, membership)
                membership.in_touch()
                self._renew(link, membership)
        except OortError as error:
            reasons.insert(0, str(error))
        finally:
            ended.set()
            call.cancel()
            listener.join(CLOSE_SECONDS)
        if not self._stop.is_set():
            reason = reasons[0] if reasons else "the syndicate has ended the connection"
            log.warning(
                "syndicate %s is lost: %s; this node goes on serving and asks again",
                link.server,
                reason,
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
                self._check_restart(link, membership)
        except OortError as error:
            reasons.append(str(error))
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                log.info(
                    "syndicate %s: %s; asking for new rings instead", link.server, error.details()
                )
                refused = True  # the question for the version finds new rings
            reasons.append(str(call_error(link.server, error)))
        except Exception:
            if not ended.is_set():  # a closed connection raises too
                log.exception("following the ring failed; trying again")
        finally:
            if not refused:
                ended.set()

    def _check_restart(self, link: Link, membership: Membership) -> None:
        """Ask the syndicate whether a new configuration of the ring comes with a restart."""
        conf = membership.configuration.ring
        if conf != self._checked_conf:
            try:
                asks = link.asks_for_restart(conf)
            except CallError as error:
                if error.unreachable:
                    raise  # the next connection asks again
                log.warning(
                    "cannot find out whether the ring's configuration asks for a restart: %s", error
                )
                asks = False
            self._checked_conf = conf
            if asks:
                membership.ask_for_restart()

    def _renew(self, link: Link, membership: Membership) -> None:
        """Renew the certificate if it is old or lacks an address that the ring has of this node.

        The syndicate calls the node at these addresses.
        """
        if self._clock.monotonic() < self._renew_at:
            return
        ring = membership.ring
        node = ring.local_node if ring is not None else None
        try:
            addresses = node.addresses if node else ()
            needed = {parse_address(address, "ring")[0] for address in addresses}
            if link.renew(self._seeker.joining, needed):
                self._renew_at = self._clock.monotonic() + RENEWAL_PAUSE
        except OortError as error:
            self._renew_at = self._clock.monotonic() + RENEWAL_PAUSE
            log.warning("the certificate was not renewed: %s", error)
