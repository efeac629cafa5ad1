"""Getting a model file over https, from allowed hosts only, once.

    <folder>/<key>-<name>.gguf         a finished download, never changed again
    <folder>/<key>-<name>.gguf.part    what came before the connection was cut
    <folder>/<key>-<name>.gguf.json    the ETag that the part belongs to
    <folder>/<key>-<name>.gguf.lock    held by the one process that downloads

A cut download goes on where it was (Range, If-Range), as long as the server has the same
file. The first bytes must say GGUF, the size is watched while it streams, the hash is
checked before the file gets its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from flashfeed.models.errors import ModelRefused, ModelUnavailable

from .alone import alone
from .gguf import MAGIC, read_header
from .model_hash import write_atomically

_CHUNK: Final = 1 << 20
_TIMEOUT_S: Final = 30.0
_TRIES: Final = 5
_PAUSE_S: Final = 0.5
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_PROGRESS_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Download:
    """A file on an https host; `sha256` "" where nobody said what it must be."""

    url: str
    sha256: str = ""

    def target(self, folder: Path) -> Path:
        """Where the finished file lies: another URL or hash is another file."""
        key = hashlib.sha256(f"{self.url}\n{self.sha256}".encode()).hexdigest()[:16]
        name = _NAME.sub("_", urlsplit(self.url).path.rpartition("/")[2])[-100:]
        return folder / f"{key}-{name.removesuffix('.gguf')}.gguf"


@dataclass(frozen=True)
class DownloadLimits:
    """What may be downloaded. `allow_hosts` are host names or `*.example.com`, with
    `:port` where it is not 443; `size_max_bytes` bounds one file, `total_max_bytes` the
    folder. `tls` None takes the system's authorities."""

    allow_hosts: tuple[str, ...] = ()
    size_max_bytes: int = 20 * 2**30
    total_max_bytes: int = 60 * 2**30
    tls: ssl.SSLContext | None = None


def host_allowed(url: str, allow_hosts: Sequence[str]) -> bool:
    """Whether a URL is https on one of the hosts; `*.x` are the hosts under x, not x."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower().rstrip("."), parts.port or 443
    except ValueError:
        return False
    if parts.scheme != "https" or not host or parts.username is not None:
        return False
    for pattern in allow_hosts:
        name, colon, number = pattern.lower().rpartition(":")
        allowed, allowed_port = (name, number) if colon else (number, "443")
        if str(port) != allowed_port:
            continue
        if host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:])):
            return True
    return False


def download(
    wanted: Download, limits: DownloadLimits, folder: Path, say: Callable[[str], None]
) -> Path:
    """The file, downloaded unless it is there. Blocks.

    Raises ModelRefused where it cannot be had as it is (host, size, hash, no GGUF),
    ModelUnavailable where another try may help; what came by then is kept for that.
    """
    target = wanted.target(folder)
    if target.is_file():
        return target
    if not host_allowed(wanted.url, limits.allow_hosts):
        raise ModelRefused(
            f"{wanted.url}: its host is not in models.allow_hosts "
            f"({', '.join(limits.allow_hosts) or 'which is empty'})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with alone(target):
        if target.is_file():  # another process was faster
            return target
        part = target.with_name(target.name + ".part")
        say(f"flashfeed: downloading {wanted.url}")
        _complete(wanted, limits, part, say)
        _check(wanted, part)
        part.rename(target)
        part.with_suffix(".json").unlink(missing_ok=True)
        say(f"flashfeed: kept as {target}")
    return target


def _complete(
    wanted: Download, limits: DownloadLimits, part: Path, say: Callable[[str], None]
) -> None:
    """Fetches until the part is whole; gives up after several tries without progress."""
    tries = _TRIES
    while True:
        before = _size(part)
        try:
            _fetch_once(wanted, limits, part, say)
            return
        except ModelUnavailable as error:
            tries = _TRIES if _size(part) > before else tries - 1
            if tries == 0:
                raise
            say(f"flashfeed: {error}; trying again")
            time.sleep(_PAUSE_S * (_TRIES - tries))
        except ModelRefused:
            _forget(part)
            raise


def _fetch_once(
    wanted: Download, limits: DownloadLimits, part: Path, say: Callable[[str], None]
) -> None:
    """One request: what is missing, appended to the part."""
    have, tag = _size(part), _tag(part)
    if not tag or not have:
        _forget(part)
        have = 0
    request = urllib.request.Request(wanted.url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        with _opener(limits).open(request, timeout=_TIMEOUT_S) as response:
            if response.status != 206:  # the whole file: new, changed, or no ranges there
                _forget(part)
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                _forget(part)
                raise ModelUnavailable(f"{wanted.url}: the server sent another range than asked")
            _receive(wanted, limits, response, part, have, say)
    except urllib.error.HTTPError as error:
        _refuse_status(wanted, part, error.code)
    except (OSError, http.client.HTTPException) as error:
        raise ModelUnavailable(f"{wanted.url}: {error or type(error).__name__}") from None


def _refuse_status(wanted: Download, part: Path, status: int) -> None:
    if status == 416:  # nothing is left to send, or the file became shorter
        _forget(part)
    if status in (408, 416, 425, 429) or status >= 500:
        raise ModelUnavailable(f"{wanted.url}: the server answered {status}")
    raise ModelRefused(f"{wanted.url}: the server answered {status}")


def _receive(
    wanted: Download,
    limits: DownloadLimits,
    response: Any,
    part: Path,
    have: int,
    say: Callable[[str], None],
) -> None:
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    _check_size(wanted, limits, part, total or have)
    tag = response.headers.get("ETag", "")
    if not have:  # a weak ETag does not promise the same bytes
        strong = "" if tag.startswith("W/") else tag
        write_atomically(part.with_suffix(".json"), json.dumps({"etag": strong}))
    with part.open("ab") as file:
        while chunk := response.read(_CHUNK):
            begins, have = have, have + len(chunk)
            _check_size(wanted, limits, part, have)
            file.write(chunk)
            if begins < len(MAGIC) <= have:
                _check_magic(wanted, file, part)
            if begins // _PROGRESS_BYTES != have // _PROGRESS_BYTES:
                say(f"flashfeed: {have >> 20} of {(total or 0) >> 20} MiB")
    if total is not None and have != total:
        raise ModelUnavailable(f"{wanted.url}: cut after {have} of {total} bytes")


def _check_size(wanted: Download, limits: DownloadLimits, part: Path, size: int) -> None:
    if size > limits.size_max_bytes:
        raise ModelRefused(
            f"{wanted.url}: expected at most models.size_max_bytes "
            f"({limits.size_max_bytes}), got {size} bytes or more"
        )
    others = sum(_size(file) for file in part.parent.iterdir() if file != part)
    if others + size > limits.total_max_bytes:
        raise ModelRefused(
            f"{wanted.url}: {size} bytes beside the {others} in {part.parent} are over "
            f"models.downloads_max_bytes ({limits.total_max_bytes}); delete what is not used"
        )


def _check_magic(wanted: Download, file: IO[bytes], part: Path) -> None:
    file.flush()
    with part.open("rb") as written:
        if written.read(len(MAGIC)) != MAGIC:
            raise ModelRefused(f"{wanted.url}: expected a GGUF file, got something else")


def _check(wanted: Download, part: Path) -> None:
    """The whole file: its hash, and a header that reads. A wrong one is not kept."""
    try:
        if wanted.sha256:
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != wanted.sha256:
                raise ModelRefused(f"{wanted.url}: expected sha256 {wanted.sha256}, got {digest}")
        read_header(part)
    except ModelRefused:
        _forget(part)
        raise


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tag(part: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(part.with_suffix(".json").read_text())["etag"])
    return ""


class _AllowedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to an allowed host, and refuses every other."""

    def __init__(self, allow_hosts: Sequence[str]) -> None:
        self._allow_hosts = allow_hosts

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request to follow with. Raises ModelRefused for another host."""
        if not host_allowed(newurl, self._allow_hosts):
            raise ModelRefused(
                f"{req.full_url}: redirects to {urlsplit(newurl).netloc}, which is not in "
                "models.allow_hosts (or not https)"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(limits: DownloadLimits) -> urllib.request.OpenerDirector:
    """https only, through the proxy that the environment names; no file:, no ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=limits.tls or ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _AllowedRedirects(limits.allow_hosts),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
