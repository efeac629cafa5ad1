"""Where a browser's request comes from, and whether a page of there may make it.

Programs send no Origin. A browser sends one with every WebSocket and with whatever
changes something; without keys it is all that tells a page of ours from another's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

ANY_ORIGIN = "*"


def origin_may(headers: Headers, named: Collection[str]) -> bool:
    """Whether the request is a program's, of a page of this very host, or of an origin
    that the configuration names."""
    origin = headers.get("origin")
    if origin is None or origin in named or ANY_ORIGIN in named:
        return True
    return _netloc(origin) == headers.get("host", "")


def is_own_host(headers: Headers) -> bool:
    """Whether the Host header is an address or localhost. A page may point a name of its
    own at 127.0.0.1, and is then of "the same origin" as a bridge there; it can not make
    the browser send another Host than that name."""
    host = _host_of(headers.get("host", ""))
    return host == "localhost" or host.endswith(".localhost") or _is_address(host)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
