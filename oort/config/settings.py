"""Layered configuration: the description of every setting, and the layer of every value.

The dataclass `Settings` is the only list of settings, with their names, sections, checks, defaults
and documentation.  The ConfigObj configspec, the names of environment variables, the output of
`oortd --print-config` and docs/configuration.md are generated from it.

The layers, in order of increasing priority: defaults, cached configuration, ring, node,
configuration file, environment, flags.  Every layer is checked on its own, so that an error names
the layer, the section and the key.  layers.py reads the layers.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from configobj.validate import ValidateError, Validator, VdtValueError

from oort.errors import ConfigError

KIB, MIB, GIB = 1024, 1024**2, 1024**3

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": KIB,
    "kib": KIB,
    "m": 1000**2,
    "mb": MIB,
    "mib": MIB,
    "g": 1000**3,
    "gb": GIB,
    "gib": GIB,
    "t": 1000**4,
    "tb": 1024**4,
    "tib": 1024**4,
}

# Store types of the original oort that have another name here.
_STORE_ALIASES = {"oortstore": "valuestore"}


def parse_size(text: str) -> int:
    """A size in bytes from "512 MiB", "64mb" or "4096"; ValueError if the text is invalid.

    The units are those of redis.conf: k = 1000, kb = 1024.
    """
    found = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size such as 512 MiB")
    return int(found[1]) * _SIZE_UNITS[found[2].lower()]


def format_size(size: int) -> str:
    """The shortest exact form of a size: 67108864 is "64 MiB"."""
    for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:6139", "[::1]:6139" or ":6139" (all IPv4 addresses).

    Raises ValueError if the text is invalid.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address such as 127.0.0.1:6139")
    if ":" in host and not bracketed:
        raise ValueError(f"{text!r} is not an address: write IPv6 as [::1]:6139")
    return (host[1:-1] if bracketed else host) or "0.0.0.0", int(port)  # noqa: S104


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _setting(
    name: str, check: str, default: str, doc: str, section: str = "", *, own: bool = False
) -> Any:
    """`own` settings cannot be set by a ring, because the node needs them before it has a ring."""
    return dataclasses.field(
        metadata={
            "name": name,
            "check": check,
            "default": default,
            "doc": doc,
            "section": section,
            "own": own,
        }
    )


def _store_setting(name: str, check: str, default: str, doc: str) -> Any:
    return _setting(name, check, default, doc, "ValueStoreConfig")


def _control_setting(name: str, check: str, default: str, doc: str, *, own: bool = False) -> Any:
    return _setting(name, check, default, doc, "CmdCtrlConfig", own=own)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting of oortd, checked and typed."""

    listen_address: tuple[str, ...] = _setting(
        "ListenAddress",
        "address_list",
        "0.0.0.0:6139",
        "Addresses to listen on, as host:port. IPv6 is written [::1]:6139. Commas separate several"
        " addresses. Port 0 takes any free port.",
    )
    data_dir: str = _setting(
        "DataDir",
        "string(min=1)",
        "/var/lib/oort",
        "Directory of the store. Only one oortd at a time can have it open.",
    )
    runtime_dir: str = _setting(
        "RuntimeDir",
        "string",
        "",
        "Directory on a tmpfs for the file that makes a restart after a kill fast. Empty: the first"
        " of $RUNTIME_DIRECTORY, /run/oortd (for root only), $XDG_RUNTIME_DIR/oort,"
        " /dev/shm/oort-UID.",
    )
    store_type: str = _setting(
        "StoreType",
        "store_type",
        "valuestore",
        "`valuestore` keeps values on disk, `mapstore` keeps them in memory only. `oortstore` is"
        " another name of `valuestore`.",
    )
    fsync: str = _setting(
        "Fsync",
        "option('always', 'everysec', 'no')",
        "everysec",
        "When a write reaches the device: before its reply (always), about a second later"
        " (everysec), or when the kernel writes it (no).",
    )
    workers: int = _setting(
        "Workers",
        "workers",
        "auto",
        "Number of data-plane threads. `auto`: one less than the number of processors, at least 1"
        " and at most 8. 0: no threads; the main loop does their work, which suits machines with"
        " one processor.",
    )
    max_clients: int = _setting(
        "MaxClients", "integer(min=1, max=1000000)", "10000", "Maximum number of connections."
    )
    require_pass: str = _setting(
        "RequirePass",
        "string",
        "",
        "Password that clients must give with AUTH or HELLO. Empty: no password.",
    )
    protected_mode: bool = _setting(
        "ProtectedMode",
        "boolean",
        "true",
        "Serve only loopback peers while no password is set.",
    )
    idle_timeout: int = _setting(
        "IdleTimeout",
        "integer(min=0, max=2147483647)",
        "0",
        "Seconds after which an idle connection is closed. 0: never.",
    )
    tcp_keepalive: int = _setting(
        "TCPKeepalive",
        "integer(min=0, max=32767)",
        "300",
        "Seconds of silence after which the kernel checks that the peer still exists. 0: never.",
    )
    query_buffer_limit: int = _setting(
        "QueryBufferLimit",
        "size(min=1048576)",
        "1 GiB",
        "A connection is closed if its unfinished request is larger than this.",
    )
    output_buffer_limit: int = _setting(
        "OutputBufferLimit",
        "size(min=1048576)",
        "256 MiB",
        "A connection is closed if its client leaves more bytes of replies unread than this.",
    )
    value_cap: int = _setting(
        "ValueCap",
        "size(min=1048576, max=536870912)",
        "512 MiB",
        "Maximum size of a value, and of any argument of a request.",
    )
    log_level: str = _setting(
        "LogLevel",
        "option('debug', 'info', 'notice', 'warning', 'error')",
        "info",
        "Messages of this level and of more important levels are logged.",
    )
    tiers: tuple[str, ...] = _setting(
        "Tiers",
        "tier_list",
        "",
        "What the node shares with other nodes, such as its rack and its site. The closest comes"
        " first; commas separate them. The ring keeps replicas apart by tiers. The node reports its"
        " tiers to the syndicate. Empty: the syndicate keeps the tiers that it has for this node.",
        own=True,
    )
    config_cache: str = _setting(
        "ConfigCache",
        "string(min=1)",
        "/var/cache/oortd-config.cache",
        "File with the last configuration from a syndicate. A symbolic link is followed.",
        own=True,
    )
    join_token_file: str = _setting(
        "JoinTokenFile",
        "string(min=1)",
        "/etc/oort/join.token",
        "File that may hold the join token. The file is not read once the node has its"
        " certificate.",
        own=True,
    )
    segment_size: int = _store_setting(
        "SegmentSize",
        "size(max=134217728)",
        "0",
        "Size of a segment, which is a file of the value log; at least 64 KiB. 0: 64 MiB, or a 32nd"
        " of the disk if the disk is smaller than 2 GiB.",
    )
    compaction_threshold: int = _store_setting(
        "CompactionThreshold",
        "integer(min=1, max=99)",
        "50",
        "Percentage of the log that may be dead. Above it, the segments with the largest dead share"
        " are compacted. Dead space of less than 16 segments (1 GiB) is left alone while the disk"
        " has plenty of free space.",
    )
    compaction_rate: int = _store_setting(
        "CompactionRate",
        "size",
        "0",
        "Bytes a second that compaction may read and write. 0: the store's default.",
    )
    free_disk_low: int = _store_setting(
        "FreeDiskLow",
        "size",
        "0",
        "The store refuses writes while the file system has less free space than this. 0: the"
        " store's default.",
    )
    tombstone_age: int = _store_setting(
        "TombstoneAge",
        "integer(min=0, max=4294967295)",
        "86400",
        "Seconds for which the record of a deletion is kept at least.",
    )
    control_enabled: str = _control_setting(
        "Enabled",
        "option('auto', 'true', 'false')",
        "auto",
        "Whether the node can be controlled over the network (docs/cmdctrl.md). `auto`: if the node"
        " belongs to a syndicate.",
    )
    control_address: str = _control_setting(
        "ListenAddress", "address", "0.0.0.0:4444", "Address of the control interface."
    )
    control_tls: bool = _control_setting(
        "UseTLS",
        "boolean",
        "true",
        "Whether the interface uses TLS. If false, only callers on the node itself are served, and"
        " the connection is not encrypted.",
    )
    control_mutual: bool = _control_setting(
        "MutualTLS",
        "boolean",
        "true",
        "Whether callers must show a certificate of the authority. If false, only callers on the"
        " node itself are served.",
    )
    cert_file: str = _control_setting(
        "CertFile", "string(min=1)", "/etc/oort/server.crt", "The node's certificate.", own=True
    )
    key_file: str = _control_setting(
        "KeyFile", "string(min=1)", "/etc/oort/server.key", "The private key of CertFile.", own=True
    )
    ca_file: str = _control_setting(
        "CAFile",
        "string(min=1)",
        "/etc/oort/ca.crt",
        "Certificates of the authority by which the node verifies callers and the syndicate.",
        own=True,
    )


@dataclasses.dataclass(frozen=True)
class Setting:
    """The description of one setting."""

    field: str
    name: str
    section: str
    check: str
    default: str
    doc: str
    own: bool

    @property
    def place(self) -> str:
        """The section and the key, as messages name the setting."""
        return f"[{self.section}] {self.name}" if self.section else self.name

    @property
    def environment(self) -> str:
        """The environment variable: OORT_<SECTION>_<KEY>, or OORT_<KEY> outside sections."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name).upper()
        return f"OORT_{self.section.upper()}_{words}" if self.section else f"OORT_{words}"


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(field=field.name, **field.metadata) for field in dataclasses.fields(Settings)
)
_BY_FIELD = {setting.field: setting for setting in SETTINGS}

# These variables decide about the ring before any setting is read.  They have no flags; the token
# must not appear on a command line.
RING_ENVIRONMENT = {
    "OORT_SYNDICATE_OVERRIDE": "HOST:PORT of the syndicate. The node does not look it up in DNS."
    " This variable wins over OORTD_SKIP_SRV.",
    "OORT_SYNDICATE_FINGERPRINT": "SHA-256 fingerprint of the syndicate's certificate or of its"
    " authority's certificate. The node verifies the syndicate by it while there is no CAFile.",
    "OORT_JOIN_TOKEN": "The join token. It replaces JoinTokenFile.",
    "OORTD_SKIP_SRV": "true: the node does not look for a syndicate.",
    "OORT_RING_FILE": "With OORTD_SKIP_SRV=true: the file of the node's ring. Without this variable"
    " the node serves alone.",
    "OORT_LOCALID": "With OORTD_SKIP_SRV=true: the id of this node in the ring, decimal or"
    " hexadecimal.",
}


def configspec() -> list[str]:
    """The lines of the ConfigObj configspec."""
    lines: list[str] = []
    section = ""
    for setting in SETTINGS:
        if setting.section != section:
            section = setting.section
            lines.append(f"[{section}]")
        lines.append(f"{setting.name} = {setting.check}")
    return lines


def _check_size(value: object, min: str = "0", max: str = str(2**63 - 1)) -> int:
    try:
        size = parse_size(str(value))
    except ValueError as error:
        raise VdtValueError(value) from error
    if not int(min) <= size <= int(max):
        raise VdtValueError(value)
    return size


def _check_address_list(value: object) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    addresses = tuple(str(part).strip().strip("\"'") for part in parts if str(part).strip())
    if not addresses:
        raise VdtValueError(value)
    for address in addresses:
        try:
            split_address(address)
        except ValueError as error:
            raise VdtValueError(address) from error
    return addresses


def _check_tier_list(value: object) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    tiers = tuple(str(part).strip().strip("\"'") for part in parts)
    if not all(tier.isprintable() for tier in tiers):
        raise VdtValueError(value)
    return tiers if any(tiers) else ()


def _check_address(value: object) -> str:
    addresses = _check_address_list(value)
    if len(addresses) != 1:
        raise VdtValueError(value)
    return addresses[0]


def _check_store_type(value: object) -> str:
    text = str(value).lower()
    text = _STORE_ALIASES.get(text, text)
    if text not in ("valuestore", "mapstore"):
        raise VdtValueError(value)
    return text


def _check_workers(value: object) -> int:
    if str(value).lower() == "auto":
        return max(1, min(8, len(os.sched_getaffinity(0)) - 1))
    if not re.fullmatch(r"\d{1,3}", str(value)) or int(str(value)) > 64:
        raise VdtValueError(value)
    return int(str(value))


_VALIDATOR = Validator(
    {
        "size": _check_size,
        "address": _check_address,
        "address_list": _check_address_list,
        "store_type": _check_store_type,
        "tier_list": _check_tier_list,
        "workers": _check_workers,
    }
)

_WANTED = {
    "address": "one address such as 0.0.0.0:4444",
    "address_list": "addresses such as 127.0.0.1:6139",
    "store_type": "valuestore or mapstore",
    "tier_list": "names such as server1, rack2",
    "workers": "auto or a number from 0 to 64",
    "boolean": "true or false",
    "string(min=1)": "a text that is not empty",
}


def wanted(setting: Setting) -> str:
    """A description of the values that a setting takes."""
    if setting.check in _WANTED:
        return _WANTED[setting.check]
    limits = dict(re.findall(r"(min|max)=(\d+)", setting.check))
    kind = setting.check.partition("(")[0]
    if kind == "option":
        return ", ".join(re.findall(r"'([^']*)'", setting.check))
    if kind == "string":
        return "a text"
    noun = "a size" if kind == "size" else "a number"
    low, high = limits.get("min"), limits.get("max")
    show = (lambda text: format_size(int(text))) if kind == "size" else str
    if low is not None and high is not None:
        return f"{noun} from {show(low)} to {show(high)}"
    return f"{noun} of at least {show(low)}" if low is not None else noun


def check_value(setting: Setting, value: object, source: str) -> Any:
    """The typed value, or a ConfigError that names the source, the section and the key."""
    try:
        return _VALIDATOR.check(setting.check, value)
    except ValidateError as error:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if setting.field == "require_pass":
            shown = "***"
        raise ConfigError(
            f"{source}: {setting.place} = {shown!r}: must be {wanted(setting)}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Layer:
    """The unchecked values of one source, by field."""

    source: str
    values: Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The settings, and the layer that each came from, by field."""

    settings: Settings
    sources: Mapping[str, str]

    def with_setting(self, field: str, value: Any, source: str) -> Configuration:
        """A copy with one value changed, for CONFIG SET; the value must be checked already."""
        changed = dataclasses.replace(self.settings, **{field: value})
        return Configuration(changed, {**self.sources, field: source})


def resolve(layers: list[Layer]) -> Configuration:
    """Check every layer and apply the layers in order; ConfigError if a value is invalid."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    defaults = Layer("default", {setting.field: setting.default for setting in SETTINGS})
    for layer in [defaults, *layers]:
        for field, value in layer.values.items():
            values[field] = check_value(_BY_FIELD[field], value, layer.source)
            sources[field] = layer.source
    return Configuration(Settings(**values), sources)


def format_value(setting: Setting, value: object) -> str:
    if setting.check.startswith("size") and isinstance(value, int):
        return format_size(value)
    if isinstance(value, tuple) and value:
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value not in ("", ()) else '""'


def print_config(configuration: Configuration) -> str:
    """All settings in the form of a configuration file, with the layer of each as a comment."""
    lines: list[str] = []
    section = ""
    for setting in SETTINGS:
        if setting.section != section:
            section = setting.section
            lines += ["", f"[{section}]"]
        value = getattr(configuration.settings, setting.field)
        shown = format_value(setting, value)
        if setting.field == "require_pass" and value:
            shown = "(hidden)"
        lines.append(f"{setting.name} = {shown}  # {configuration.sources[setting.field]}")
    return "\n".join(lines) + "\n"
