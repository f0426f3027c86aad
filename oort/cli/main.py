"""oort-cli runs a command from the command line, commands from standard input, or a prompt.

`oort-cli keys` without a pattern creates this machine's certificate (keys.py).  `oort-cli ctl`
calls a node's control interface (ctl.py).

Exit status: 0 on success; 1 if a reply was an error or the server could not be reached; 2 for an
invalid command line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from oort.errors import OortError
from oort.flags import FlagParser

from . import format as formats
from .protocol import Connection, ErrorReply, Push, Reply

HISTORY = Path.home() / ".oort_cli_history"
HISTORY_LINES = 1000
ENDLESS = (b"subscribe", b"psubscribe", b"monitor")


def build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(prog="oort-cli", add_help=False, allow_abbrev=False)
    parser.add_argument("--help", action="help", help="show this help")
    parser.add_argument("-h", dest="host", default="127.0.0.1", metavar="HOST")
    parser.add_argument("-p", dest="port", type=int, default=6139, metavar="PORT")
    parser.add_argument("-a", dest="password", metavar="PASSWORD",
                        help="default: $OORT_PASSWORD, then $REDISCLI_AUTH")  # fmt: skip
    parser.add_argument("--user", help="user name for AUTH")
    parser.add_argument("-n", dest="database", type=int, default=0, metavar="DB")
    parser.add_argument("-3", dest="resp3", action="store_true", help="speak RESP3")
    parser.add_argument("-x", dest="stdin_last", action="store_true",
                        help="read the last argument from standard input")  # fmt: skip
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--raw", action="store_true", help="print bytes as they are")
    output.add_argument("--no-raw", action="store_true", help="print for people")
    output.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ARGS...")
    return parser


class RefusedError(OortError):
    """The server refused AUTH, HELLO or SELECT."""


def connect(options: argparse.Namespace) -> Connection:
    """Connect, and send AUTH, HELLO and SELECT as the options require.

    Raises ConnectionLostError, and RefusedError if the server refuses one of them.
    """
    password = options.password
    if password is None:
        password = os.environ.get("OORT_PASSWORD") or os.environ.get("REDISCLI_AUTH")
    connection = Connection(options.host, options.port)
    greetings: list[tuple[str, ...]] = []
    if password is not None:
        greetings.append(("AUTH", options.user, password) if options.user else ("AUTH", password))
    if options.resp3 or options.json:
        greetings.append(("HELLO", "3"))
    if options.database:
        greetings.append(("SELECT", str(options.database)))
    for greeting in greetings:
        reply = connection.call(*greeting)
        if isinstance(reply, ErrorReply):
            connection.close()
            raise RefusedError(f"{greeting[0]} failed: {reply.text.decode('utf-8', 'replace')}")
    return connection


def printer(options: argparse.Namespace) -> Callable[[Reply], bytes]:
    if options.json:
        return formats.as_json
    if options.raw or (not options.no_raw and not sys.stdout.isatty()):
        return formats.raw
    return formats.terminal


def show(reply: Reply, form: Callable[[Reply], bytes]) -> None:
    sys.stdout.buffer.write(form(reply) + b"\n")
    sys.stdout.buffer.flush()


def execute(connection: Connection, arguments: list[bytes], form: Callable[[Reply], bytes]) -> bool:
    """Run a command and print its reply; False for an error reply."""
    connection.send(*arguments)
    reply = connection.read()
    endless = arguments[0].lower() in ENDLESS and not isinstance(reply, ErrorReply)
    while endless or isinstance(reply, Push):
        show(reply, form)
        reply = connection.read()
    show(reply, form)
    return not isinstance(reply, ErrorReply)


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Line editing with the lines of earlier sessions."""
    try:
        import readline
    except ImportError:  # this Python has no readline, so the prompt has no line editing
        yield
        return
    readline.set_auto_history(False)
    if HISTORY.exists():
        readline.read_history_file(HISTORY)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        try:
            HISTORY.touch(mode=0o600)
            readline.write_history_file(HISTORY)
        except OSError as error:
            print(f"oort-cli: cannot save the history: {error}", file=sys.stderr)


def remember(line: str) -> None:
    """Add a line to the history, unless it may contain a password."""
    words = line.lower().split()
    if "auth" in words or "requirepass" in words or not words:
        return
    with contextlib.suppress(ImportError):  # without readline there is no history
        import readline

        readline.add_history(line)


def prompt(options: argparse.Namespace) -> int:
    """Run typed commands until the end of input; reconnects for the next line if necessary."""
    connection: Connection | None = connect(options)
    form = printer(options)
    with history():
        while True:
            try:
                database = f"[{options.database}]" if options.database else ""
                line = input(f"{options.host}:{options.port}{database}> ")
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                continue
            remember(line)
            arguments = formats.split(line)
            if arguments is None:
                print("Invalid argument(s)")
                continue
            if not arguments:
                continue
            if arguments[0].lower() in (b"quit", b"exit"):
                return 0
            try:
                connection = connection or connect(options)
                good = execute(connection, arguments, form)
                if good and arguments[0].lower() == b"select" and len(arguments) == 2:
                    options.database = int(arguments[1])
            except (OortError, KeyboardInterrupt) as error:
                # A reply that is still to come must not be taken for that of the next command.
                if connection is not None:
                    connection.close()
                connection = None
                print(error if isinstance(error, OortError) else "")


def from_stdin(options: argparse.Namespace) -> int:
    good = True
    form = printer(options)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # any bytes
    with connect(options) as connection:
        for number, line in enumerate(sys.stdin, 1):
            arguments = formats.split(line)
            if arguments is None:
                print(f"oort-cli: line {number}: unbalanced quotes", file=sys.stderr)
                good = False
            elif arguments:
                good = execute(connection, arguments, form) and good
    return 0 if good else 1


def is_keys(command: list[str]) -> bool:
    """Whether this is `oort-cli keys`, and not the server's KEYS PATTERN."""
    return command[0] == "keys" and all(argument.startswith("--") for argument in command[1:2])


def main(argv: list[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    try:
        if options.command:
            arguments = [os.fsencode(argument) for argument in options.command]
            if is_keys(options.command):
                from . import keys  # loads cryptography, which the other commands do not need

                return keys.main(options.command[1:])
            if options.command[0] == "ctl":
                from . import ctl

                return ctl.main(options.command[1:])
            if options.stdin_last:
                arguments.append(sys.stdin.buffer.read())
            with connect(options) as connection:
                return 0 if execute(connection, arguments, printer(options)) else 1
        return prompt(options) if sys.stdin.isatty() else from_stdin(options)
    except OortError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
