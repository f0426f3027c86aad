"""/etc/oort/syndicate.conf, the settings of synd: what all its rings share, and a section for each.

ConfigObj without interpolation.  Every error is one line with the file, the section, the key and
what it takes.  The section [client] is syndicate-client's (tool_connection.py) and no service.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError, flatten_errors
from configobj.validate import Validator

from oort.errors import ConfigError, RingError, StateError
from oort.ring.builder import Settings as RingSettings

from .state import check_service

CONFIG_FILE = Path("/etc/oort/syndicate.conf")
CLIENT = "client"
PRIVATE = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPEC = f"""
State = string(min=1, default=/var/lib/oort/synd)
EtcdCAFile = string(default="")
EtcdCertFile = string(default="")
EtcdKeyFile = string(default="")
EtcdPrefix = string(min=1, default=/oort)
Advertise = string(default="")
Names = force_list(default=list())
CAFile = string(min=1, default=/etc/oort/ca.crt)
OperatorCertFile = string(min=1, default=/etc/oort/operator.crt)
OperatorKeyFile = string(min=1, default=/etc/oort/operator.key)
LogLevel = option(debug, info, notice, warning, error, default=info)
[__many__]
    ListenAddress = string(min=1, default=0.0.0.0)
    Port = integer(min=0, max=65535, default=8443)
    NetFilter = force_list(default=list({PRIVATE}))
    TierFilter = force_list(default=list(".*"))
    CmdCtrlPort = integer(min=1, max=65535, default=4444)
    MsgRingPort = integer(min=1, max=65535, default=8001)
    Capacity = string(default=auto)
    Replicas = integer(min=1, max=127, default=3)
    MoveWait = integer(min=0, max=65535, default=60)
    PointsAllowed = integer(min=0, max=255, default=1)
    MaxPartitionBits = integer(min=1, max=30, default=23)
"""


@dataclass(frozen=True)
class Service:
    """One ring."""

    name: str
    listen_address: str
    port: int
    networks: tuple[Network, ...]
    tiers: tuple[re.Pattern[str], ...]
    cmdctrl_port: int
    ring_port: int
    capacity: int | None  # of a node that registers; None: from its hardware
    replicas: int
    ring: RingSettings


@dataclass(frozen=True)
class Config:
    file: Path
    state: str  # a directory, or etcd://HOST:PORT,...
    etcd_ca_file: str
    etcd_cert_file: str
    etcd_key_file: str
    etcd_prefix: str
    advertise: str  # the host that other synds and nodes reach this one at
    names: tuple[str, ...]  # in the certificate
    ca_file: Path
    operator_cert_file: Path
    operator_key_file: Path
    log_level: str
    services: tuple[Service, ...]

    @property
    def etcd(self) -> tuple[str, ...]:
        """etcd's members; none where the state is a directory."""
        if not self.state.startswith("etcd://"):
            return ()
        members = self.state.removeprefix("etcd://").split(",")
        return tuple(member.strip() for member in members if member.strip())


def read(path: Path) -> Config:
    """Raises ConfigError."""
    spec = ConfigObj(_SPEC.splitlines(), _inspec=True, interpolation=False, list_values=False)
    try:
        parsed = ConfigObj(
            str(path), configspec=spec, file_error=True, interpolation=False, encoding="utf-8"
        )
    except (ConfigObjError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    parsed.pop(CLIENT, None)
    outcome = parsed.validate(Validator(), preserve_errors=True)
    if outcome is not True:
        for sections, key, wrong in flatten_errors(parsed, outcome):
            place = f"[{sections[0]}] {key}" if sections else str(key)
            raise ConfigError(f"{path}: {place}: {wrong or 'is missing'}")
    _refuse_unknown(path, parsed, spec)
    if not parsed.sections:
        raise ConfigError(f"{path}: no service: a section with a name for each ring, as [oort]")
    if not parsed["State"].startswith("etcd://") and "://" in parsed["State"]:
        raise ConfigError(f"{path}: State: a directory, or etcd://HOST:PORT,HOST:PORT,...")
    host = socket.gethostname()
    names = [str(name).strip() for name in parsed["Names"] if str(name).strip()]
    services = tuple(_service(path, name, parsed[name]) for name in parsed.sections)
    ports = [(one.listen_address, one.port) for one in services if one.port]
    for used in ports:
        if ports.count(used) > 1:
            raise ConfigError(f"{path}: two services have port {used[1]}")
    return Config(
        file=path,
        state=parsed["State"],
        etcd_ca_file=parsed["EtcdCAFile"],
        etcd_cert_file=parsed["EtcdCertFile"],
        etcd_key_file=parsed["EtcdKeyFile"],
        etcd_prefix=parsed["EtcdPrefix"],
        advertise=parsed["Advertise"] or (names[0] if names else socket.getfqdn(host)),
        names=tuple(names or dict.fromkeys((socket.getfqdn(host), host))),
        ca_file=Path(parsed["CAFile"]),
        operator_cert_file=Path(parsed["OperatorCertFile"]),
        operator_key_file=Path(parsed["OperatorKeyFile"]),
        log_level=parsed["LogLevel"],
        services=services,
    )


def _refuse_unknown(path: Path, parsed: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    for name, value in parsed.items():
        if not isinstance(value, dict):
            if name not in spec:
                raise ConfigError(f"{path}: unknown setting {name}")
            continue
        for key in value:
            if key not in spec["__many__"]:
                raise ConfigError(f"{path}: unknown setting [{name}] {key}")


def _service(path: Path, name: str, section: Mapping[str, Any]) -> Service:
    def wrong(key: str, text: str) -> ConfigError:
        return ConfigError(f"{path}: [{name}] {key}: {text}")

    try:
        check_service(name)
    except StateError as error:
        raise ConfigError(f"{path}: [{name}]: {error}") from error
    networks: list[Network] = []
    for text in section["NetFilter"]:
        try:
            networks.append(ipaddress.ip_network(text.strip()))
        except ValueError as error:
            raise wrong("NetFilter", f"{error}; it takes networks such as 10.1.0.0/16") from error
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
