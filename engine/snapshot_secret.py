"""The snapshots' secret and the folder that it lies in, which are the owner's alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Final

from flashfeed.models.errors import ConfigError

_SECRET_BYTES: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def snapshot_secret(folder: Path) -> bytes:
    """The secret in `<folder>/key`, made at the first call (32 random bytes, mode 0600).

    Raises ConfigError where it cannot be read or made, is too short, or others could
    have read it.
    """
    make_private(folder)
    path = folder / "key"
    try:
        if not path.exists():
            _create_once(path, secrets.token_bytes(_SECRET_BYTES))
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read or make the snapshots' key: {error}") from error
    if mode & _OTHERS:
        raise ConfigError(f"expected {path} to be its owner's alone (chmod 600); or delete it")
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(f"expected {_SECRET_BYTES} bytes in {path}; delete it for a new one")
    return secret


def make_private(folder: Path) -> None:
    """Makes the folder (mode 0700). Raises ConfigError where it cannot, or others may enter
    the one that is there: changing the mode of a folder that was named by mistake could
    lock somebody out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = folder.stat().st_mode
    except OSError as error:
        raise ConfigError(f"cannot use the snapshots' folder {folder}: {error}") from error
    if mode & _OTHERS:
        raise ConfigError(
            f"expected the snapshots' folder {folder} to be its owner's alone, got mode "
            f"{stat.S_IMODE(mode):o}; chmod 700 it, or name a folder for snapshots alone"
        )


def _create_once(path: Path, content: bytes) -> None:
    """The file with this content; as it is where another process was faster."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix="key.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        # A link, unlike a rename, does not replace what is there.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
