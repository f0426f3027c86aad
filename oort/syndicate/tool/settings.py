"""The settings of syndicate-client: the address of the syndicate, certificates and timeouts.

In order of increasing priority, settings come from [client] in the configuration file, from the
environment (OORT_SYNDICATE_OVERRIDE, OORT_SYNDICATE_FINGERPRINT), and from options.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError, flatten_errors
from configobj.validate import Validator

from oort.errors import ConfigError
from oort.syndicate.connection import DEFAULT_PORT, Settings, parse_address
from oort.tls import certificates

CONFIG_FILE = Path("/etc/oort/syndicate.conf")
SECTION = "client"

_CONFIGSPEC = f"""
[{SECTION}]
Server = string(default="localhost:{DEFAULT_PORT}")
CAFile = string(default="/etc/oort/ca.crt")
CertFile = string(default="/etc/oort/operator.crt")
KeyFile = string(default="/etc/oort/operator.key")
Fingerprint = string(default="")
CmdCtrlPort = integer(min=1, max=65535, default=4444)
UseTLS = boolean(default=True)
Timeout = float(min=0.1, max=86400, default=10)
"""


def _read_file(path: Path, required: bool) -> dict[str, Any]:
    """The checked section [client] with defaults.  Raises ConfigError."""
    spec = ConfigObj(_CONFIGSPEC.splitlines(), _inspec=True, interpolation=False, list_values=False)
    try:
        parsed = ConfigObj(
            str(path),
            configspec=spec,
            file_error=required,
            interpolation=False,
            encoding="utf-8",
        )
    except (ConfigObjError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if not isinstance(parsed.get(SECTION, {}), dict):
        raise ConfigError(f"{path}: {SECTION} must be a section: [{SECTION}]")
    known = set(spec[SECTION])
    unknown = set(parsed.get(SECTION, {})) - known
    if unknown:
        raise ConfigError(f"{path}: unknown setting [{SECTION}] {min(unknown)}")
    outcome = parsed.validate(Validator(), preserve_errors=True)
    if outcome is not True:
        for sections, name, wrong in flatten_errors(parsed, outcome):
            if sections == [SECTION]:
                raise ConfigError(f"{path}: [{SECTION}] {name}: {wrong}")
    section: dict[str, Any] = parsed[SECTION]
    return section


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings from all layers.  Raises ConfigError, and TLSError for a bad fingerprint."""
    file = _read_file(options.config or CONFIG_FILE, required=options.config is not None)
    override = os.environ.get("OORT_SYNDICATE_OVERRIDE")
    if options.server is not None:
        server, source = options.server, "--server"
    elif override:
        server, source = override, "OORT_SYNDICATE_OVERRIDE"
    else:
        server, source = file["Server"], f"[{SECTION}] Server"
    host, port = parse_address(server, source)
    fingerprint = file["Fingerprint"]
    if os.environ.get("OORT_SYNDICATE_FINGERPRINT"):
        fingerprint = os.environ["OORT_SYNDICATE_FINGERPRINT"]
    if options.ca is not None:
        fingerprint = ""  # --ca overrides a fingerprint of an earlier layer
    if options.fingerprint is not None:
        fingerprint = options.fingerprint
    return Settings(
        host=host,
        port=port,
        ca_file=Path(options.ca or file["CAFile"]),
        cert_file=Path(options.cert or file["CertFile"]),
        key_file=Path(options.key or file["KeyFile"]),
        fingerprint=certificates.parse_fingerprint(fingerprint) if fingerprint else "",
        cmdctrl_port=options.cmdctrl_port or file["CmdCtrlPort"],
        use_tls=file["UseTLS"] and not options.no_tls,
        timeout=options.timeout or file["Timeout"],
    )
