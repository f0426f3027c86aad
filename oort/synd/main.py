"""The synd command.

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 (argparse's) wrong usage, 78
(EX_CONFIG) wrong settings: systemd does not try these again.
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
    made = FlagParser(
        prog="synd",
        description="Hand the nodes of a ring their ring and their configuration.",
        epilog="SIGHUP reads the configuration again; SIGTERM and SIGINT stop it.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=Path("/etc/oort/syndicate.conf"),
        help="configuration file (%(default)s)",
    )
    made.add_argument(
        "--print-config", action="store_true", help="check the configuration, and show all of it"
    )
    made.add_argument("--version", action="store_true", help="show the version")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.version:
        print(f"synd {__version__}")
        return 0
    environment = os.environ
    # gRPC's own lines are not for operators; what they are about is said in ours.
    environment.setdefault("GRPC_VERBOSITY", "NONE")
    journal.start(environment, "synd", "grpc", "asyncio")
    # Imported late: --version and --help need no gRPC.
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
        # While systemd waits before the next attempt, `systemctl status` has no log lines but this.
        Notifier(environment).status(f"cannot start: {error}")
        return os.EX_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:  # before the event loop takes SIGINT
        logging.getLogger("synd").critical("cannot start: interrupted")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
