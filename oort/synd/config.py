"""The settings of synd, /etc/oort/syndicate.conf: shared settings, and a section for each ring.

SHARED and RING are the only lists of settings.  The ConfigObj configspec, `synd --print-config` and
the lists in docs/syndicate.md (`python -m oort.synd.config`) are generated from them.

The file is ConfigObj without interpolation.  Every error is one line with the file, the section,
the key and the expected value.  The section [client] is not a ring.  It belongs to
syndicate-client, and oort/syndicate/tool/settings.py reads it.
"""

from __future__ import annotations

import ipaddress
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError, flatten_errors
from configobj.validate import Validator

from oort import machine
from oort.errors import ConfigError, RingError, StateError
from oort.ring.builder import Settings as RingSettings
from oort.synd.state.state import check_service

from .authority import SERVICE as AUTHORITY

CONFIG_FILE = Path("/etc/oort/syndicate.conf")
CLIENT = "client"
LOCALHOST = ("localhost", "127.0.0.1", "::1")
_PRIVATE = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Setting:
    name: str
    check: str  # in the syntax of the configspec
    default: str
    doc: str


SHARED = (
    Setting("State", "string(min=1)", "/var/lib/oort/synd",
            "Place of the rings: a directory, or `etcd://HOST:PORT,HOST:PORT`."),
    Setting("EtcdCAFile", "string", "",
            "Certificates by which synd verifies etcd. With this setting the connection uses TLS."),
    Setting("EtcdCertFile", "string", "", "The certificate that synd shows to etcd."),
    Setting("EtcdKeyFile", "string", "", "The private key of EtcdCertFile."),
    Setting("EtcdPrefix", "string(min=2)", "/oort",
            "Prefix of the keys in etcd. Syndicates that share an etcd need different prefixes."),
    Setting("Advertise", "string", "",
            "The host name or address by which the other synds reach this synd. Empty: the first"
            " of its names."),
    Setting("Names", "force_list", "",
            "The names and addresses in synd's certificate. No node can have them. With several"
            " synds, the names and addresses of all synds. Empty: the host's names and addresses."),
    Setting("CAFile", "string(min=1)", "/etc/oort/ca.crt",
            "synd writes the authority's certificate to this file if the file does not exist."),
    Setting("OperatorCertFile", "string(min=1)", "/etc/oort/operator.crt",
            "synd writes the first operator's certificate to this file if the file does not"
            " exist."),
    Setting("OperatorKeyFile", "string(min=1)", "/etc/oort/operator.key",
            "The private key of OperatorCertFile."),
    Setting("LogLevel", "option('debug', 'info', 'notice', 'warning', 'error')", "info",
            "Messages of this level and of more important levels are logged."),
)  # fmt: skip

RING = (
    Setting("ListenAddress", "string(min=1)", "0.0.0.0",  # noqa: S104 - callers show certificates
            "The address of the ring's service. `::` means all addresses of IPv6 and IPv4."),
    Setting("Port", "integer(min=0, max=65535)", "8443",
            "The port of the ring's service. 0: any free port."),
    Setting("NetFilter", "force_list", _PRIVATE,
            "Networks of the nodes' addresses. Loopback addresses count only if one of the networks"
            " is a loopback network itself, such as 127.0.0.0/8."),
    Setting("TierFilter", "force_list", ".*",
            "Regular expressions. One of them must match each tier of a node as a whole."),
    Setting("CmdCtrlPort", "integer(min=1, max=65535)", "4444",
            "The port of CmdCtrl at every node's address."),
    Setting("MsgRingPort", "integer(min=1, max=65535)", "8001",
            "The port in the addresses of nodes that register."),
    Setting("Capacity", "string(min=1)", "auto",
            "The capacity of a node that registers. `auto`: the size of its disks in GiB, or of its"
            " memory if it reports no disks."),
    Setting("Replicas", "integer(min=1, max=127)", "3",
            "Replicas of a new ring. `syndicate-client replicas` changes them later."),
    Setting("MoveWait", "integer(min=0, max=65535)", "60",
            "Minimum number of minutes between two moves of replicas of one partition."),
    Setting("PointsAllowed", "integer(min=0, max=255)", "1",
            "Percentage by which a node may be above or below its share."),
    Setting("MaxPartitionBits", "integer(min=1, max=30)", "23",
            "A ring has at most 2^MaxPartitionBits partitions."),
)  # fmt: skip

# Settings that cannot change while synd runs; a reload warns that they need a restart.
FIXED = {setting.name for setting in SHARED} - {"LogLevel"} | {"ListenAddress", "Port"}


@dataclass(frozen=True)
class Service:
    """The settings of one ring."""

    name: str
    listen_address: str
    port: int
    networks: tuple[Network, ...]
    tiers: tuple[re.Pattern[str], ...]
    cmdctrl_port: int
    ring_port: int
    capacity: int | None  # of nodes that register; None: computed from their hardware
    replicas: int
    ring: RingSettings


@dataclass(frozen=True)
class Config:
    file: Path
    values: Mapping[str, Any]  # the value of every setting by name; a mapping for each section
    state: str  # a directory, or etcd://HOST:PORT,...
    etcd_ca_file: str
    etcd_cert_file: str
    etcd_key_file: str
    etcd_prefix: str
    advertise: str  # the host at which other synds reach this synd
    names: tuple[str, ...]  # the names in the certificate
    ca_file: Path
    operator_cert_file: Path
    operator_key_file: Path
    log_level: str
    services: tuple[Service, ...]

    @property
    def etcd(self) -> tuple[str, ...]:
        """The members of etcd; empty if the state is a directory."""
        if not self.state.startswith("etcd://"):
            return ()
        members = self.state.removeprefix("etcd://").split(",")
        return tuple(member.strip() for member in members if member.strip())

    def fixed_changes(self, wanted: Config) -> list[str]:
        """The names of the settings of FIXED whose values differ in `wanted`."""
        found = _fixed_changes(SHARED, self.values, wanted.values)
        names = {service.name for service in self.services}
        if names != {service.name for service in wanted.services}:
            found.append("rings")
        for service in wanted.services:
            if service.name in names:
                mine, other = self.values[service.name], wanted.values[service.name]
                found += [f"[{service.name}] {name}" for name in _fixed_changes(RING, mine, other)]
        return found

    @property
    def reserved(self) -> tuple[str, ...]:
        """The names that nodes on other machines must not have."""
        return tuple(
            name for name in self.names if name not in LOCALHOST and not name.startswith("127.")
        )


def _fixed_changes(
    settings: Sequence[Setting], values: Mapping[str, Any], others: Mapping[str, Any]
) -> list[str]:
    return [
        setting.name
        for setting in settings
        if setting.name in FIXED and values[setting.name] != others[setting.name]
    ]


def _default(setting: Setting) -> str:
    if setting.check == "force_list":
        items = [item.strip() for item in setting.default.split(",") if item.strip()]
        return f"list({', '.join(repr(item) for item in items)})"
    return f'"{setting.default}"'


def _configspec() -> list[str]:
    def line(setting: Setting) -> str:
        kind, bracket, limits = setting.check.rstrip(")").partition("(")
        limits = f"{limits}, " if bracket else ""
        return f"{setting.name} = {kind}({limits}default={_default(setting)})"

    return [*map(line, SHARED), "[__many__]", *map(line, RING)]


def read(path: Path) -> Config:
    """Read and check the file.  Raises ConfigError."""
    spec = ConfigObj(_configspec(), _inspec=True, interpolation=False, list_values=False)
    try:
        parsed = ConfigObj(
            str(path), configspec=spec, file_error=True, interpolation=False, encoding="utf-8"
        )
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except ConfigObjError as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        # ConfigObj's own error for a missing file has no errno.
        raise ConfigError(f"{path}: {error.strerror or 'the file does not exist'}") from error
    parsed.pop(CLIENT, None)
    _refuse_unknown(path, parsed)
    outcome = parsed.validate(Validator(), preserve_errors=True)
    if outcome is not True:
        for sections, key, wrong in flatten_errors(parsed, outcome):
            place = f"[{sections[0]}] {key}" if sections else str(key)
            raise ConfigError(f"{path}: {place}: {wrong or 'is missing'}")
    if not parsed.sections:
        raise ConfigError(f"{path}: there is no ring: add a section with its name, such as [oort]")
    if not parsed["State"].startswith("etcd://") and "://" in parsed["State"]:
        raise ConfigError(f"{path}: State: must be a directory or etcd://HOST:PORT,HOST:PORT,...")
    _check_etcd(path, parsed)
    services = tuple(_service(path, name, parsed[name]) for name in parsed.sections)
    ports = [service.port for service in services if service.port]
    for port in ports:
        if ports.count(port) > 1:
            raise ConfigError(f"{path}: two rings have the same Port {port}")
    names = [str(name).strip() for name in parsed["Names"] if str(name).strip()]
    own = names or [*machine.names(), *machine.addresses()]
    return Config(
        file=path,
        values=parsed.dict(),
        state=parsed["State"],
        etcd_ca_file=parsed["EtcdCAFile"],
        etcd_cert_file=parsed["EtcdCertFile"],
        etcd_key_file=parsed["EtcdKeyFile"],
        etcd_prefix=parsed["EtcdPrefix"].rstrip("/"),
        advertise=parsed["Advertise"] or own[0],
        names=tuple(dict.fromkeys((*own, *LOCALHOST))),
        ca_file=Path(parsed["CAFile"]),
        operator_cert_file=Path(parsed["OperatorCertFile"]),
        operator_key_file=Path(parsed["OperatorKeyFile"]),
        log_level=parsed["LogLevel"],
        services=services,
    )


def _check_etcd(path: Path, parsed: Mapping[str, Any]) -> None:
    cert, key = parsed["EtcdCertFile"], parsed["EtcdKeyFile"]
    if bool(cert) != bool(key):
        raise ConfigError(f"{path}: set both EtcdCertFile and EtcdKeyFile, or neither")
    if cert and not parsed["EtcdCAFile"]:
        raise ConfigError(f"{path}: EtcdCAFile: must be set, because EtcdCertFile is set")


def _refuse_unknown(path: Path, parsed: Mapping[str, Any]) -> None:
    shared, ring = ({setting.name for setting in settings} for settings in (SHARED, RING))
    for name, value in parsed.items():
        if not isinstance(value, dict):
            if name not in shared:
                raise ConfigError(f"{path}: unknown setting {name}")
            continue
        if name in shared:
            raise ConfigError(f"{path}: {name} is a setting, not a section")
        for key in value:
            if key not in ring:
                raise ConfigError(f"{path}: unknown setting [{name}] {key}")


def _service(path: Path, name: str, section: Mapping[str, Any]) -> Service:
    def wrong(key: str, text: str) -> ConfigError:
        return ConfigError(f"{path}: [{name}] {key}: {text}")

    try:
        check_service(name)
    except StateError as error:
        raise ConfigError(f"{path}: [{name}]: {error}") from error
    if name == AUTHORITY:
        raise ConfigError(f"{path}: [{name}]: this name is reserved: choose another name")
    try:
        ipaddress.ip_address(section["ListenAddress"])
    except ValueError as error:
        raise wrong("ListenAddress", f"{error}") from error
    networks: list[Network] = []
    for text in section["NetFilter"]:
        try:
            networks.append(ipaddress.ip_network(text.strip()))
        except ValueError as error:
            raise wrong("NetFilter", f"{error}; use networks such as 10.1.0.0/16") from error
    tiers: list[re.Pattern[str]] = []
    for text in section["TierFilter"]:
        try:
            tiers.append(re.compile(text))
        except re.error as error:
            raise wrong("TierFilter", f"{text!r} is not a regular expression: {error}") from error
    capacity = section["Capacity"]
    if capacity != "auto" and not (re.fullmatch(r"\d{1,10}", capacity) and int(capacity) < 2**32):
        raise wrong("Capacity", f"{capacity!r} is neither auto nor a number below 2^32")
    ring = RingSettings(
        points_allowed=section["PointsAllowed"],
        max_partition_bits=section["MaxPartitionBits"],
        move_wait=section["MoveWait"],
    )
    try:
        ring.check()
    except RingError as error:
        raise ConfigError(f"{path}: [{name}]: {error}") from error
    return Service(
        name=name,
        listen_address=section["ListenAddress"],
        port=section["Port"],
        networks=tuple(networks),
        tiers=tuple(tiers),
        cmdctrl_port=section["CmdCtrlPort"],
        ring_port=section["MsgRingPort"],
        capacity=None if capacity == "auto" else int(capacity),
        replicas=section["Replicas"],
        ring=ring,
    )


def print_config(config: Config) -> str:
    """All settings with their values, in the form of the file."""

    def line(setting: Setting, values: Mapping[str, Any]) -> str:
        value = values[setting.name]
        if isinstance(value, list):
            text = ", ".join(map(_quoted, value)) if len(value) != 1 else _quoted(value[0])
            return f"{setting.name} = {text or _quoted('')}"
        return f"{setting.name} = {_quoted(str(value))}"

    lines = [line(setting, config.values) for setting in SHARED]
    for service in config.services:
        lines += ["", f"[{service.name}]"]
        lines += [line(setting, config.values[service.name]) for setting in RING]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if text and not re.search(r"[,#\"']|^\s|\s$", text):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def documentation() -> str:
    """The lists of settings for docs/syndicate.md."""
    lines = ["Outside any section, for all rings:", ""]
    for settings in (SHARED, RING):
        if settings is RING:
            lines += ["", "In the section of a ring:", ""]
        for setting in settings:
            default = f"`{setting.default}`" if setting.default else "empty"
            lines += textwrap.wrap(
                f"`{setting.name}`: {setting.doc} Default: {default}.",
                118,
                initial_indent="- ",
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines) + "\n"


BEGIN = "<!-- Made by `python -m oort.synd.config`; change oort/synd/config.py. -->\n\n"
END = "\n<!-- end -->\n"


def renew(page: str) -> str:
    """The text of docs/syndicate.md with its lists of settings replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + documentation() + END + after


if __name__ == "__main__":
    document = Path(__file__).parents[2] / "docs" / "syndicate.md"
    document.write_text(renew(document.read_text(encoding="utf-8")), encoding="utf-8")
