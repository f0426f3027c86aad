"""oort-cli keys: the private key and the certificate of this machine.

Makes what is missing, and never overwrites: a key with a certificate that stands for itself, for
this machine's names and addresses.  A node that joins a syndicate gets a certificate of the
syndicate's authority instead, for a key of its own.
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
        description="Make this machine's private key and certificate where they are missing.",
        epilog="With a pattern (oort-cli keys 'a*') it is the server's command KEYS.",
    )
    parser.add_argument("--dir", type=Path, default=DIRECTORY, help=f"default: {DIRECTORY}")
    parser.add_argument("--names", action="append", metavar="NAME,...",
                        help="host names and addresses (default: this machine's)")  # fmt: skip
    parser.add_argument("--days", type=int, default=DAYS, help=f"valid so long (default: {DAYS})")
    parser.add_argument("--group", default=GROUP,
                        help=f"may read the key, if there is one (default: {GROUP})")  # fmt: skip
    parser.add_argument("--show", action="store_true", help="make nothing, print what is there")
    return parser


def local_names() -> list[str]:
    """This machine's host names and addresses, the best known first."""
    names = machine.names()
    short = [name.partition(".")[0] for name in names]
    return list(dict.fromkeys([*names, *short, "localhost", *machine.addresses()]))


def _key_group(name: str) -> int | None:
    """The group that may read the key; only root can give a file to any group."""
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def make(directory: Path, names: Sequence[str], days: int, group: str = GROUP) -> list[Path]:
    """Make what is missing; the files made.  Raises TLSError for a certificate without its key."""
    key_file, certificate_file = directory / KEY_FILE, directory / CERTIFICATE_FILE
    if certificate_file.exists():
        if not key_file.exists():
            raise TLSError(f"{certificate_file} is there, but not {key_file}: move it away first")
        return []
    made = []
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise TLSError(f"cannot make {directory}: {error.strerror}") from error
    if not key_file.exists():
        # The names must be good before anything is made.
        key = certificates.make_key()
        certificate = certificates.self_signed(key, names, days)
        tls_files.write_key(key_file, key, group=_key_group(group))
        made.append(key_file)
    else:
        certificate = certificates.self_signed(tls_files.read(key_file), names, days)
    tls_files.write_public(certificate_file, certificate)
    made.append(certificate_file)
    return made


def describe(directory: Path) -> str:
    """What is there, for people."""
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
        raise TLSError(f"no {CERTIFICATE_FILE} in {directory}: oort-cli keys makes one")
    return "\n".join(lines)


def _key_state(certificate: bytes, key_file: Path) -> str:
    if not key_file.exists():
        return "missing"
    if not os.access(key_file, os.R_OK):
        return "not readable for you"
    fits = certificates.belong(certificate, tls_files.read(key_file))
    return "fits" if fits else "belongs to another certificate"


def main(arguments: Sequence[str]) -> int:
    """`arguments` follow `keys`.  Raises TLSError."""
    options = build_parser().parse_args(arguments)
    if options.show:
        print(describe(options.dir))
        return 0
    names = [name for part in options.names or [] for name in part.split(",") if name]
    made = make(options.dir, names or local_names(), options.days, options.group)
    for path in made:
        print(f"made {path}")
    if not made:
        print(f"{options.dir / CERTIFICATE_FILE} and {KEY_FILE} are there already: nothing made")
    return 0
