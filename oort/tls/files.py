"""An identity in three files: certificate, private key, certificates of the authorities.

A file is replaced at once and durably, or not at all.  A private key is never readable by
everybody, not for an instant, and its file keeps the mode and the owner it has.  Key and
certificate cannot be replaced in one step: a new certificate lies beside the old one (`.next`)
before the new key is there, and whoever loads takes the one that goes with the key.  So a kill at
any moment leaves a pair that works.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from oort import durable
from oort.errors import TLSError

from .certificates import MAX_PEM_BYTES, Identity, belong, read_certificates

PRIVATE = durable.PRIVATE
PUBLIC = 0o644
_READABLE = 0o664
_NOT_BY_ALL = 0o660


def load_identity(
    cert_file: Path | str, key_file: Path | str, ca_file: Path | str | None
) -> Identity:
    """What save_identity wrote.  Without a `ca_file` there are no roots: it verifies nobody.

    Raises TLSError, with the file in it, for what is missing, unreadable, or does not go together.
    """
    key = read(key_file)
    certificate = _certificate_of(key, Path(cert_file), Path(key_file))
    roots = read(ca_file) if ca_file is not None else b""
    if ca_file is not None:
        try:
            read_certificates(roots)
        except TLSError as error:
            raise TLSError(f"{ca_file}: {error}") from error
    return Identity(certificate, key, roots)


def _certificate_of(key: bytes, cert_file: Path, key_file: Path) -> bytes:
    """The certificate, or the one that was about to replace it: whichever the key is of."""
    try:
        certificate = read(cert_file)
        fits = belong(certificate, key)
    except TLSError as error:
        wrong = error
    else:
        if fits:
            return certificate
        wrong = TLSError(f"{key_file} is not the private key of {cert_file}")
    follower = _next(cert_file)
    if is_there(follower):
        certificate = read(follower)
        if belong(certificate, key):
            return certificate
    raise wrong


def save_identity(
    identity: Identity, cert_file: Path | str, key_file: Path | str, ca_file: Path | str | None
) -> None:
    """Durable on return.  `ca_file` None: the roots are not written."""
    identity.check()
    cert, key = _target(cert_file), _target(key_file)
    if ca_file is not None and identity.roots:
        write_public(ca_file, identity.roots)
    try:
        follower = _next(cert)
        durable.replace(follower, identity.certificate, PUBLIC)
        _replace(key, identity.key, PRIVATE)
        durable.rename(follower, cert)
    except OSError as error:
        raise _unwritable(error, cert) from error


def write_public(path: Path | str, data: bytes) -> None:
    """A file for everybody to read, replaced at once and durably."""
    path = _target(path)
    try:
        _replace(path, data, PUBLIC)
    except OSError as error:
        raise _unwritable(error, path) from error


def write_key(path: Path | str, key: bytes, *, group: int | None = None) -> None:
    """A new private key: for root and `group` (0640), or for its owner alone (0600).

    Raises TLSError if the file is there already.
    """
    path = Path(path)
    mode = PRIVATE if group is None else 0o640
    try:
        durable.create(path, key, mode, group=durable.AS_IT_IS if group is None else group)
    except FileExistsError as error:
        raise TLSError(f"{path} is there already: it is not overwritten") from error
    except OSError as error:
        raise _unwritable(error, path) from error


def _target(path: Path | str) -> Path:
    """Through links: what is replaced is the file, wherever it lies."""
    return Path(path).resolve()


def _next(cert_file: Path) -> Path:
    target = _target(cert_file)
    return target.with_name(target.name + ".next")


def _unwritable(error: OSError, path: Path) -> TLSError:
    return TLSError(f"cannot write {error.filename or path}: {error.strerror}")


def is_there(path: Path | str) -> bool:
    """Whether there is such a file; TLSError where that cannot be told."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise TLSError(f"cannot read {path}: {error.strerror}") from error
    return True


def read(path: Path | str) -> bytes:
    """A file of keys or certificates; TLSError if it cannot be read or is too large for that."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise TLSError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_PEM_BYTES:
        raise TLSError(f"{path} is larger than {MAX_PEM_BYTES} bytes: neither key nor certificate")
    return data


def _replace(path: Path, data: bytes, mode: int) -> None:
    """A file that is there keeps its owner, and of its mode the bits that are safe for `mode`."""
    owner = group = durable.AS_IT_IS
    if path.exists():
        there = path.stat()
        mode = (
            stat.S_IMODE(there.st_mode) & (_READABLE if mode == PUBLIC else _NOT_BY_ALL) | PRIVATE
        )
        # Only root can give a file away; whoever else may replace it becomes its owner, and can
        # keep its group only as a member.
        if os.geteuid() == 0:
            owner, group = there.st_uid, there.st_gid
        elif there.st_gid in (os.getegid(), *os.getgroups()):
            group = there.st_gid
    durable.replace(path, data, mode, owner=owner, group=group)
