"""The SHA-256 of a model file, read once: remembered beside it under size and mtime."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path


def model_hash(path: Path) -> str:
    """The file's SHA-256 in hex. Where the folder cannot be written it is read each time."""
    stat = path.stat()
    known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    beside = path.with_name(path.name + ".sha256.json")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        remembered = json.loads(beside.read_text())
        digest = remembered.pop("sha256", None)
        if remembered == known and isinstance(digest, str):
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):
        write_atomically(beside, json.dumps({**known, "sha256": digest}))
    return digest


def write_atomically(path: Path, text: str) -> None:
    """The file is there whole, or as it was before."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
