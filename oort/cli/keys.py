"""oort-cli keys: the private key and the certificate of this machine.

The command creates missing files and never overwrites a file.  It creates a private key and a
self-signed certificate for this machine's names and addresses.  A node that joins a syndicate gets
a certificate from the syndicate's authority instead, for a new key.
"""

from __future__ import annotations

import argparse
import grp
import os
from collections.abc import Sequence
from pathlib import Path

from oort import machine
from oort.errors import TLSError
from oort.flags import FlagParser
from oort.tls import certificates
from oort.tls import files as tls_files

DIRECTORY = Path("/etc/oort")
GROUP = "oort"
DAYS = 3650

KEY_FILE = "server.key"
CERTIFICATE_FILE = "server.crt"
AUTHORITY_FILE = "ca.crt"


def build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="oort-cli keys",
        allow_abbrev=False,
        description="Create this machine's private key and certificate if they are missing.",
        epilog="With a pattern (oort-cli keys 'a*') this is the server's command KEYS.",
    )
    parser.add_argument("--dir", type=Path, default=DIRECTORY, help=f"default: {DIRECTORY}")
    parser.add_argument("--names", action="append", metavar="NAME,...",
                        help="host names and addresses (default: this machine's)")  # fmt: skip
    parser.add_argument("--days", type=int, default=DAYS,
                        help=f"validity of the certificate in days (default: {DAYS})")  # fmt: skip
    parser.add_argument("--group", default=GROUP,
                        help=f"group that may read the key (default: {GROUP})")  # fmt: skip
    parser.add_argument("--show", action="store_true",
                        help="print the existing files and create nothing")  # fmt: skip
    return parser


def local_names() -> list[str]:
    """This machine's host names and addresses, full names first."""
    names = machine.names()
    short = [name.partition(".")[0] for name in names]
    return list(dict.fromkeys([*names, *short, "localhost", *machine.addresses()]))


def _key_group(name: str) -> int | None:
    """The id of the group that may read the key; None unless root, who can set any group."""
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def make(directory: Path, names: Sequence[str], days: int, group: str = GROUP) -> list[Path]:
    """Create the missing files and return their paths.

    Raises TLSError if there is a certificate without its key, or if a file cannot be created.
    """
    key_file, certificate_file = directory / KEY_FILE, directory / CERTIFICATE_FILE
    if certificate_file.exists():
        if not key_file.exists():
            raise TLSError(f"{certificate_file} exists without {key_file}: move it away first")
        return []
    created = []
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise TLSError(f"cannot create {directory}: {error.strerror}") from error
    if not key_file.exists():
        # The certificate comes first because invalid names must leave no key file behind.
        key = certificates.make_key()
        certificate = certificates.self_signed(key, names, days)
        tls_files.write_key(key_file, key, group=_key_group(group))
        created.append(key_file)
    else:
        certificate = certificates.self_signed(tls_files.read(key_file), names, days)
    tls_files.write_public(certificate_file, certificate)
    created.append(certificate_file)
    return created


def describe(directory: Path) -> str:
    """The existing certificates and key as text for people; TLSError if they do not exist."""
    lines = []
    for name in (CERTIFICATE_FILE, AUTHORITY_FILE):
        path = directory / name
        if not path.exists():
            continue
        pem = tls_files.read(path)
        lines += [
            f"{path}",
            f"  subject      {certificates.subject_text(pem)}",
            f"  names        {', '.join(certificates.names_of(pem)) or '-'}",
            f"  fingerprint  {certificates.fingerprint(pem)}",
            f"  valid        {certificates.valid_from(pem):%Y-%m-%d %H:%M} to "
            f"{certificates.expiry(pem):%Y-%m-%d %H:%M} UTC",
        ]
        role = certificates.role_of(pem)
        if role is not None:
            lines.append(f"  role         {role[0]} ({role[1]})")
        key_file = directory / KEY_FILE
        if name == CERTIFICATE_FILE:
            lines.append(f"  private key  {key_file}: {_key_state(pem, key_file)}")
    if not lines:
        raise TLSError(f"no {CERTIFICATE_FILE} in {directory}: create it with oort-cli keys")
    return "\n".join(lines)


def _key_state(certificate: bytes, key_file: Path) -> str:
    if not key_file.exists():
        return "missing"
    if not os.access(key_file, os.R_OK):
        return "you may not read it"
    matches = certificates.belong(certificate, tls_files.read(key_file))
    return "matches" if matches else "belongs to another certificate"


def main(arguments: Sequence[str]) -> int:
    """Run the command with the arguments after `keys`.  Raises TLSError."""
    options = build_parser().parse_args(arguments)
    if options.show:
        print(describe(options.dir))
        return 0
    names = [name for part in options.names or [] for name in part.split(",") if name]
    created = make(options.dir, names or local_names(), options.days, options.group)
    for path in created:
        print(f"created {path}")
    if not created:
        print(f"{options.dir / CERTIFICATE_FILE} and {KEY_FILE} already exist: nothing was created")
    return 0
