"""What the bridge can be told. The worker's configuration fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BridgeSettings:
    """The bridge's own piece of the configuration.

    `api_keys`: with any, every route but health, metrics and the API's description
    wants one of them. `body_bytes_max` bounds a request's body and a WebSocket frame.
    `heartbeat_s`: an event stream that was silent this long says so. `stalled_s`: a client
    that has not read for so long, its buffer full, is cut off.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    body_bytes_max: int = 8 * 1024 * 1024
    heartbeat_s: float = 15.0
    stalled_s: float = 10.0

    def __post_init__(self) -> None:
        if any(not key for key in self.api_keys):
            raise ValueError("expected API keys of at least one character, got an empty one")
        if self.body_bytes_max < 1 or self.heartbeat_s <= 0 or self.stalled_s <= 0:
            raise ValueError("expected body_bytes_max >= 1, heartbeat_s > 0 and stalled_s > 0")
