"""The other workers' bridges, and how this one asks them: signed, over one HTTP client."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final

import httpx

from flashfeed.models.errors import ConfigError, DecodeFault, Unavailable
from flashfeed.models.ownership import OwnedSessions, Owner, decode_sessions

from .forwarded import HEADER, NO_PARTITION, passed_to, sign

SESSIONS_PATH: Final = "/cluster/sessions"
CONNECT_S: Final = 3.0
SILENCE_MAX_S: Final = 300.0
"""A generation that is not streamed says nothing until it ends."""
LIST_S: Final = 10.0
CONNECTIONS_MAX: Final = 4096

Headers = Iterable[tuple[str, str]]


class ClusterPeers:
    """Reaches the other workers of the group. `ca_file` "": the system's authorities."""

    def __init__(self, secret: bytes, ca_file: str = "") -> None:
        try:
            self.tls = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cluster.ca_file: cannot use {ca_file}: {error}") from None
        self.secret: Final = secret
        self._client = httpx.AsyncClient(
            verify=self.tls,
            trust_env=False,  # a proxy of the environment is not between our workers
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE_MAX_S, connect=CONNECT_S, pool=CONNECT_S),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=64),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def signed(self, owner: Owner, tenant: str, method: str, target: str, body: bytes) -> str:
        """The header that lets a request in at the owner of a partition."""
        now_ms = int(time.time() * 1000)
        passed = passed_to(tenant, owner.worker, owner.partition, owner.epoch, now_ms)
        return sign(self.secret, passed, method, target, body)

    def stream(
        self, owner: Owner, method: str, target: str, headers: Headers, body: bytes
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """A request to an owner, its answer not read yet. Raises what httpx does."""
        url = httpx.URL(owner.url).copy_with(raw_path=target.encode("latin-1"))
        return self._client.stream(method, url, headers=list(headers), content=body)

    async def sessions_of(self, owner: Owner) -> OwnedSessions:
        """The sessions that another worker serves."""
        now_ms = int(time.time() * 1000)
        passed = passed_to("", owner.worker, NO_PARTITION, 0, now_ms)
        header = sign(self.secret, passed, "GET", SESSIONS_PATH, b"")
        try:
            answer = await self._client.get(
                owner.url + SESSIONS_PATH, headers={HEADER: header}, timeout=LIST_S
            )
            answer.raise_for_status()
            return decode_sessions(answer.content)
        except (httpx.HTTPError, DecodeFault) as error:
            raise Unavailable("a worker does not say which sessions it serves") from error
