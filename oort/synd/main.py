"""The synd command.

Exit codes: 0 after a normal stop, 1 after a failure, 2 (from argparse) for invalid usage, 78
(EX_CONFIG) for invalid settings, after which systemd does not start synd again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from oort import __version__, journal
from oort.errors import ConfigError, OortError
from oort.flags import FlagParser
from oort.notify import Notifier


def parser() -> argparse.ArgumentParser:
    result = FlagParser(
        prog="synd",
        description="Distribute rings and their configuration to the nodes.",
        epilog="SIGHUP reads the configuration again; SIGTERM and SIGINT stop synd.",
        allow_abbrev=False,
    )
    result.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=Path("/etc/oort/syndicate.conf"),
        help="configuration file (%(default)s)",
    )
    result.add_argument(
        "--print-config", action="store_true", help="check the configuration and print all of it"
    )
    result.add_argument("--version", action="store_true", help="print the version")
    return result


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.version:
        print(f"synd {__version__}")
        return 0
    environment = os.environ
    # gRPC's own log lines are not for operators; synd logs the same events itself.
    environment.setdefault("GRPC_VERBOSITY", "NONE")
    journal.start(environment, "synd", "grpc", "asyncio")
    # Imported here because --version and --help do not need gRPC.
    from . import config

    try:
        read = config.read(arguments.config)
        if arguments.print_config:
            sys.stdout.write(config.print_config(read))
            return 0
        journal.set_level(read.log_level)
        from .serving import serve

        serve(read, Notifier(environment), lambda: config.read(arguments.config))
    except OortError as error:
        logging.getLogger("synd").critical("cannot start: %s", error)
        # While systemd waits before the next start, `systemctl status` shows this line.
        Notifier(environment).status(f"cannot start: {error}")
        return os.EX_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:  # the event loop does not handle SIGINT yet
        logging.getLogger("synd").critical("cannot start: interrupted")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
