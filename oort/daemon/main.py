"""The oortd command: flags, and the layers of configuration in their order.

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 (argparse's) wrong usage, 78
(EX_CONFIG) wrong settings: systemd does not try these again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version as package_version

from oort import journal
from oort.config.layers import environment_layer, file_layer
from oort.config.settings import Layer, Settings, print_config, resolve
from oort.errors import ConfigError, OortError
from oort.flags import FlagParser
from oort.membership import boot_ring, discovery
from oort.notify import Notifier, passed_descriptors

# Flags that set a setting, by the field they set.
_FLAGS = {
    "listen": "listen_address",
    "data_dir": "data_dir",
    "runtime_dir": "runtime_dir",
    "store": "store_type",
    "fsync": "fsync",
    "workers": "workers",
    "max_clients": "max_clients",
    "log_level": "log_level",
}


def parser() -> argparse.ArgumentParser:
    made = FlagParser(
        prog="oortd",
        description="A key/value store on disk that any Redis client can talk to.",
        epilog="Flags win over the environment (OORT_...), which wins over the file.",
        allow_abbrev=False,
    )
    made.add_argument("--standalone", action="store_true", help="serve alone, without a ring")
    made.add_argument(
        "--listen", action="append", metavar="HOST:PORT", help="where to listen (may be repeated)"
    )
    made.add_argument("--data-dir", metavar="DIR", help="directory of the store")
    made.add_argument("--runtime-dir", metavar="DIR", help="directory on tmpfs")
    made.add_argument(
        "--store", metavar="TYPE", help="valuestore (on disk) or mapstore (in memory)"
    )
    made.add_argument("--fsync", metavar="POLICY", help="always, everysec or no")
    made.add_argument("--workers", metavar="N", help="data-plane threads; 0: none; auto")
    made.add_argument("--max-clients", metavar="N", help="connections served at a time")
    made.add_argument("--log-level", metavar="LEVEL", help="debug, info, notice, warning or error")
    made.add_argument("--config", metavar="FILE", help="configuration file")
    made.add_argument(
        "--print-config", action="store_true", help="show every setting and where it is from"
    )
    made.add_argument("--version", action="store_true", help="show the version")
    return made


def layers(arguments: argparse.Namespace, environment: Mapping[str, str]) -> list[Layer]:
    flags = {
        field: getattr(arguments, flag)
        for flag, field in _FLAGS.items()
        if getattr(arguments, flag) is not None
    }
    found = [environment_layer(environment), Layer("flags", flags)]
    return [file_layer(arguments.config), *found] if arguments.config else found


def _show(origin: discovery.Origin, settings: Settings, own: list[Layer]) -> None:
    """--print-config: what oortd would boot with now."""
    ring, problem = boot_ring.configuration_of(origin, settings)
    for ignored in ring.ignored():
        print(f"oortd: {ignored}; it is left out", file=sys.stderr)
    if problem:
        print(f"oortd: {problem}", file=sys.stderr)
    sys.stdout.write(print_config(resolve([*ring.layers(), *own])))


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    environment = os.environ
    version = package_version("oort")
    if arguments.version:
        print(f"oortd {version}")
        return 0
    # gRPC's own lines are not for operators; what they are about is said in ours.
    environment.setdefault("GRPC_VERBOSITY", "NONE")
    journal.start(environment, "oortd", "grpc")
    passed = passed_descriptors(os.environ)
    try:
        own = layers(arguments, environment)
        settings = resolve(own).settings
        origin = discovery.origin(environment, arguments.standalone)
        if arguments.print_config:
            _show(origin, settings, own)
            return 0
        journal.set_level(settings.log_level)
        Notifier(environment).status("looking for the ring")
        membership = boot_ring.find(origin, settings)

        def own_layers() -> list[Layer]:
            return layers(arguments, environment)

        configuration = resolve([*membership.layers(), *own_layers()])
        journal.set_level(configuration.settings.log_level)
        # Imported late: --version, --print-config and wrong settings need no store.
        from oort.daemon.boot import serve

        return serve(
            configuration,
            environment,
            version=version,
            config_file=arguments.config,
            own_layers=own_layers,
            membership=membership,
            passed=passed,
        )
    except OortError as error:
        journal.log.critical("cannot start: %s", error, extra=journal.entry(journal.CANNOT_START))
        # While systemd waits before the next attempt, `systemctl status` has no log lines but this.
        Notifier(environment).status(f"cannot start: {error}")
        return os.EX_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:  # before the main loop takes SIGINT
        journal.log.critical("cannot start: interrupted")
        return 1


if __name__ == "__main__":
    sys.exit(main())
