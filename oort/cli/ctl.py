"""oort-cli ctl: control one node through its CmdCtrl interface.

Exit status: 0 on success; 1 if the node did not do it; 2 for an invalid command line; 3 if the node
cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oort.errors import CallError, OortError
from oort.flags import FlagParser
from oort.text_table import plain

DEFAULT_PORT = 4444
CERT_FILE = Path("/etc/oort/operator.crt")
KEY_FILE = Path("/etc/oort/operator.key")
CA_FILE = Path("/etc/oort/ca.crt")

_VERBS = {
    "health": ("HealthCheck", "show whether clients are served, and why not"),
    "stats": ("Stats", "print all of INFO as JSON"),
    "version": ("SoftwareVersion", "print the version of the software"),
    "reload": ("Reload", "read the configuration again"),
    "stop": ("Stop", "stop serving clients until start"),
    "start": ("Start", "serve clients"),
    "restart": ("Restart", "stop, reopen the store, start"),
    "exit": ("Exit", "end the process"),
    "upgrade": ("SelfUpgrade", "install a version of the software"),
    "ring": ("RingUpdate", "send a ring file; prints the version that the node has then"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="oort-cli ctl",
        allow_abbrev=False,
        description="Control a node through its CmdCtrl interface.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="verbs:\n" + "\n".join(f"  {verb:10}{text}" for verb, (_, text) in _VERBS.items()),
    )
    parser.add_argument("--host", default="localhost", help="a name in the node's certificate")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"default: {DEFAULT_PORT}")
    parser.add_argument("--cert", type=Path, default=CERT_FILE, metavar="FILE",
                        help=f"your certificate (default: {CERT_FILE})")  # fmt: skip
    parser.add_argument("--key", type=Path, default=KEY_FILE, metavar="FILE",
                        help=f"its private key (default: {KEY_FILE})")  # fmt: skip
    parser.add_argument("--ca", type=Path, default=CA_FILE, metavar="FILE",
                        help=f"certificates to verify the node (default: {CA_FILE})")  # fmt: skip
    parser.add_argument("--no-tls", action="store_true",
                        help="connect without TLS, for a node whose UseTLS is off")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("verb", choices=_VERBS, metavar="VERB", help="one of " + ", ".join(_VERBS))
    parser.add_argument("argument", nargs="?", metavar="VERSION|FILE",
                        help="the version for upgrade, or the file for ring")  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    parser = build_parser()
    options = parser.parse_args(argv)
    if (options.argument is None) == (options.verb in ("upgrade", "ring")):
        parser.error(
            f"{options.verb} takes no argument"
            if options.argument is not None
            else f"{options.verb} takes a {'version' if options.verb == 'upgrade' else 'file'}"
        )
    try:
        good, text, data = _ask(options)
    except CallError as error:
        print(f"oort-cli: {error}", file=sys.stderr)
        return 3 if error.unreachable else 1
    except OortError as error:
        print(f"oort-cli: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"ok": good, **data}))
    else:
        print(text)
    return 0 if good else 1


def _ask(options: argparse.Namespace) -> tuple[bool, str, dict[str, Any]]:
    """Call the node; returns whether it succeeded, the text for people, the data for JSON."""
    # Imported here because gRPC is slow to load and other commands do not need it.
    import grpc

    from oort.cmdctrl import cmdctrl_pb2 as messages
    from oort.cmdctrl.cmdctrl_pb2_grpc import CmdCtrlStub
    from oort.ring import files
    from oort.syndicate.connection import address, call_error
    from oort.tls import channels
    from oort.tls.files import load_identity

    target = address(options.host, options.port)
    request: Any = messages.EmptyMsg()
    if options.verb == "upgrade":
        request = messages.SelfUpgradeMsg(version=options.argument)
    elif options.verb == "ring":
        ring = files.read_ring(options.argument)
        request = messages.Ring(version=ring.version, ring=Path(options.argument).read_bytes())
    settings = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 256 * 1024**2)]
    if options.no_tls:
        channel = grpc.insecure_channel(target, settings)
    else:
        identity = load_identity(options.cert, options.key, options.ca)
        channel = grpc.secure_channel(
            target, channels.channel_credentials(identity.roots, identity), settings
        )
    with channel:
        try:
            reply = getattr(CmdCtrlStub(channel), _VERBS[options.verb][0])(
                request, timeout=options.timeout
            )
        except grpc.RpcError as error:
            raise call_error(target, error) from error
    if options.verb == "stats":
        stats = json.loads(reply.statsjson)
        return True, json.dumps(stats, indent=2), {"stats": stats}
    if options.verb == "version":
        return True, plain(reply.version), {"version": reply.version}
    if options.verb == "ring":
        held = reply.newversion == request.version
        text = f"the node has version {reply.newversion}"
        return held, text, {"version": reply.newversion}
    data = {"message": reply.msg}
    if options.verb == "health":
        data["time"] = reply.ts
    return reply.status, plain(reply.msg), data
