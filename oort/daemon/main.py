"""The command oortd: its flags, and the order of the layers of configuration.

Exit codes: 0: stopped on request.  1: could not start, or failed.  2 (argparse's): wrong usage.
78 (EX_CONFIG): invalid settings.  After 2 and 78 systemd does not start oortd again.
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

# The flags that change a setting, with the setting's field.
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
        description="A key/value store on disk that works with every Redis client.",
        epilog="Flags override the environment (OORT_...), which overrides the file.",
        allow_abbrev=False,
    )
    made.add_argument("--standalone", action="store_true", help="serve alone, without a ring")
    made.add_argument(
        "--listen",
        action="append",
        metavar="HOST:PORT",
        help="address to listen on (may be repeated)",
    )
    made.add_argument("--data-dir", metavar="DIR", help="directory of the store")
    made.add_argument("--runtime-dir", metavar="DIR", help="directory on a tmpfs")
    made.add_argument(
        "--store", metavar="TYPE", help="valuestore (on disk) or mapstore (in memory)"
    )
    made.add_argument("--fsync", metavar="POLICY", help="always, everysec or no")
    made.add_argument("--workers", metavar="N", help="data-plane threads, or auto; 0: none")
    made.add_argument("--max-clients", metavar="N", help="maximum number of connections")
    made.add_argument("--log-level", metavar="LEVEL", help="debug, info, notice, warning or error")
    made.add_argument("--config", metavar="FILE", help="configuration file")
    made.add_argument(
        "--print-config", action="store_true", help="show every setting and its source"
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
    """--print-config: the configuration that oortd would boot with now."""
    ring, problem = boot_ring.configuration_of(origin, settings)
    for ignored in ring.ignored():
        print(f"oortd: {ignored}; it is ignored", file=sys.stderr)
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
    # gRPC's own log lines are not for operators.  oortd logs the same events itself.
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
        # Imported late, because --version, --print-config and invalid settings need no store.
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
        # While systemd waits before the next attempt, `systemctl status` shows this line only.
        Notifier(environment).status(f"cannot start: {error}")
        return os.EX_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:  # SIGINT before the main loop handles it
        journal.log.critical("cannot start: interrupted")
        return 1


if __name__ == "__main__":
    sys.exit(main())
