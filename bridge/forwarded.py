"""What a worker says of a request that it passes on to another, and how that is signed. Pure.

The header carries a `Passed` and an HMAC-SHA256 over it, the method, the path with its
query, and the body's hash, under the secret that all workers of a group share. It is good
once, for AGE_MAX_S, at the one worker that it names: the clocks of a group may be that
far apart and no further.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import Final

import msgspec
from starlette.types import Scope

from flashfeed.models.errors import FlashfeedError, Unavailable

HEADER: Final = "x-flashfeed-forwarded"
HEADER_CHARS_MAX: Final = 4096
AGE_MAX_S: Final = 30
SEEN_MAX: Final = 200_000
SECRET_CHARS_MIN: Final = 16
NO_PARTITION: Final = -1

FORWARDED: Final = "flashfeed.forwarded"
"""Where the scope has what the header of a request says, once it is checked."""

_CONTEXT: Final = b"flashfeed forwarded request, version 1"


class ForwardRefused(FlashfeedError):
    """A request says that a worker passed it on, and is not to be believed."""

    status = 403
    code = "forward_refused"


class Passed(msgspec.Struct, frozen=True):
    """A request passed on for a tenant to a worker, as the owner of a partition since an
    epoch. `partition` NO_PARTITION: to the worker itself."""

    tenant: str
    worker: str
    partition: int
    epoch: int
    time_ms: int
    nonce: str


_decoder = msgspec.json.Decoder(Passed)


def passed_to(tenant: str, worker: str, partition: int, epoch: int, now_ms: int) -> Passed:
    """What is said of a request now."""
    return Passed(tenant, worker, partition, epoch, now_ms, secrets.token_hex(16))


def target_of(scope: Scope) -> str:
    """A request's path and query, as they came."""
    query = scope.get("query_string", b"").decode("latin-1")
    path = scope["raw_path"].decode("latin-1")
    return f"{path}?{query}" if query else path


def method_of(scope: Scope) -> str:
    """A request's method; a WebSocket's is a word of its own."""
    return "WEBSOCKET" if scope["type"] == "websocket" else str(scope["method"])


def sign(secret: bytes, passed: Passed, method: str, target: str, body: bytes) -> str:
    """The header's value."""
    claims = base64.urlsafe_b64encode(msgspec.json.encode(passed))
    return f"{claims.decode()}.{_mac(secret, claims, method, target, body)}"


def verify(secret: bytes, header: str, method: str, target: str, body: bytes) -> Passed:
    """What a header says of a request. Raises ForwardRefused where another than a worker
    of the group wrote it, or for another request."""
    claims, _, mac = header.partition(".")
    expected = _mac(secret, claims.encode("latin-1"), method, target, body)
    if len(header) > HEADER_CHARS_MAX or not hmac.compare_digest(
        expected.encode(), mac.encode("latin-1")
    ):
        raise ForwardRefused(f"{HEADER}: not signed for this request with this group's secret")
    return _decoder.decode(base64.urlsafe_b64decode(claims))


class Admission:
    """Lets a signed request in once, at the worker and in the time that it is meant for."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._seen: OrderedDict[str, int] = OrderedDict()

    def admit(self, passed: Passed, now_ms: int) -> None:
        """Raises ForwardRefused where a request is old or was here before, Unavailable
        where it is another worker's, or too many came to tell."""
        if abs(now_ms - passed.time_ms) > AGE_MAX_S * 1000:
            raise ForwardRefused(
                f"{HEADER}: expected to be at most {AGE_MAX_S} s old, is "
                f"{(now_ms - passed.time_ms) / 1000:.0f} s by this machine's clock"
            )
        while self._seen and next(iter(self._seen.values())) < now_ms - 2 * AGE_MAX_S * 1000:
            self._seen.popitem(last=False)
        if passed.nonce in self._seen:
            raise ForwardRefused(f"{HEADER}: this very request was here before")
        if passed.worker != self._worker:
            raise Unavailable("the worker that this request was passed on to is gone")
        if len(self._seen) >= SEEN_MAX:
            raise Unavailable(f"more than {SEEN_MAX} requests passed on within a minute")
        self._seen[passed.nonce] = now_ms


def _mac(secret: bytes, claims: bytes, method: str, target: str, body: bytes) -> str:
    parts = (_CONTEXT, claims, method.encode(), target.encode("latin-1"))
    digest = hashlib.sha256(body).hexdigest().encode()
    return hmac.new(secret, b"\n".join((*parts, digest)), hashlib.sha256).hexdigest()
