"""What the bridge can be told. The worker's configuration fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field

from .keys import Keys


@dataclass(frozen=True)
class BridgeSettings:
    """The bridge's own piece of the configuration.

    `keys`: with any, every route but health and the API's description wants one of them.
    `body_bytes_max` bounds a request's body and a WebSocket frame. `heartbeat_s`: an event
    stream that was silent this long says so.
    """

    keys: Keys = field(default_factory=Keys)
    body_bytes_max: int = 8 * 1024 * 1024
    heartbeat_s: float = 15.0

    def __post_init__(self) -> None:
        if self.body_bytes_max < 1 or self.heartbeat_s <= 0:
            raise ValueError("expected body_bytes_max >= 1 and heartbeat_s > 0")
