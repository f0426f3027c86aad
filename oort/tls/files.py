"""An identity in three files: certificate, private key, certificates of the authorities.

A file is replaced atomically and durably, or not at all.  A private key is never readable by
everybody, not even for an instant, and its file keeps its owner and its mode.

Key and certificate cannot be replaced in one step.  A new certificate is therefore written beside
the old certificate (`.next`) before the new key replaces the old key, and loading picks the
certificate that matches the key.  A kill at any moment leaves a matching pair.
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
_READABLE_BY_GROUP = 0o660


def load_identity(
    cert_file: Path | str, key_file: Path | str, ca_file: Path | str | None
) -> Identity:
    """Load an identity; without a `ca_file` it has no roots and cannot verify peers.

    Raises TLSError, which names the file, if a file is missing, unreadable or does not match.
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
    """The certificate that matches the key: the current one or its `.next` file."""
    try:
        certificate = read(cert_file)
        matches = belong(certificate, key)
    except TLSError as error:
        problem = error
    else:
        if matches:
            return certificate
        problem = TLSError(f"{key_file} is not the private key of {cert_file}")
    follower = _next(cert_file)
    if is_there(follower):
        certificate = read(follower)
        if belong(certificate, key):
            return certificate
    raise problem


def save_identity(
    identity: Identity, cert_file: Path | str, key_file: Path | str, ca_file: Path | str | None
) -> None:
    """Write an identity durably.  If `ca_file` is None, the roots are not written."""
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
    """Replace a file that everybody may read, atomically and durably."""
    path = _target(path)
    try:
        _replace(path, data, PUBLIC)
    except OSError as error:
        raise _unwritable(error, path) from error


def write_key(path: Path | str, key: bytes, *, group: int | None = None) -> None:
    """Write a new private key, readable by its owner and `group` (0640) or by its owner (0600).

    Raises TLSError if the file already exists.
    """
    path = Path(path)
    mode = PRIVATE if group is None else 0o640
    try:
        durable.create(path, key, mode, group=durable.AS_IT_IS if group is None else group)
    except FileExistsError as error:
        raise TLSError(f"{path} already exists and is not overwritten") from error
    except OSError as error:
        raise _unwritable(error, path) from error


def _target(path: Path | str) -> Path:
    """The file behind symbolic links, so that the file is replaced and not the link."""
    return Path(path).resolve()


def _next(cert_file: Path) -> Path:
    target = _target(cert_file)
    return target.with_name(target.name + ".next")


def _unwritable(error: OSError, path: Path) -> TLSError:
    return TLSError(f"cannot write {error.filename or path}: {error.strerror}")


def is_there(path: Path | str) -> bool:
    """Whether the file exists; TLSError if that cannot be determined."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise TLSError(f"cannot read {path}: {error.strerror}") from error
    return True


def read(path: Path | str) -> bytes:
    """Read a file of keys or certificates; TLSError if it is unreadable or too large."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise TLSError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_PEM_BYTES:
        raise TLSError(
            f"{path} is larger than {MAX_PEM_BYTES} bytes, so it is neither key nor certificate"
        )
    return data


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Replace a file; it keeps its owner, and the bits of its mode that are safe for `mode`."""
    owner = group = durable.AS_IT_IS
    if path.exists():
        status = path.stat()
        mode = (
            stat.S_IMODE(status.st_mode) & (_READABLE if mode == PUBLIC else _READABLE_BY_GROUP)
            | PRIVATE
        )
        # Only root can keep another owner.  Any other user becomes the owner, and can keep the
        # group only as a member of the group.
        if os.geteuid() == 0:
            owner, group = status.st_uid, status.st_gid
        elif status.st_gid in (os.getegid(), *os.getgroups()):
            group = status.st_gid
    durable.replace(path, data, mode, owner=owner, group=group)
