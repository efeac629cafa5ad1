"""What the bridge can be told. The worker's configuration fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flashfeed.models.config import LimitsConfig, PipelineConfig

from .keys import Keys


@dataclass(frozen=True)
class BridgeSettings:
    """The bridge's own piece of the configuration.

    `keys`: with any, every route but health and the API's description wants one of them,
    and each tenant has its `tenant_limits`, or `limits`. `metrics_key` opens /metrics
    alone, and there the worker's own. `cors_origins` are the origins whose pages may call.
    `tls` are a certificate's file and its key's. `pipelines` are what a client may run by
    name. `body_bytes_max` bounds a request's body and a WebSocket frame,
    `header_bytes_max` headers, path and query together. `heartbeat_s`: an event stream
    that was silent this long says so. `stalled_s`: a client that has not read for so
    long, its buffer full, is cut off.
    """

    keys: Keys = field(default_factory=Keys)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    tenant_limits: Mapping[str, LimitsConfig] = field(default_factory=dict)
    metrics_key: Keys = field(default_factory=Keys)
    cors_origins: tuple[str, ...] = ()
    tls: tuple[Path, Path] | None = None
    pipelines: Mapping[str, PipelineConfig] = field(default_factory=dict)
    body_bytes_max: int = 8 * 1024 * 1024
    header_bytes_max: int = 32 * 1024
    heartbeat_s: float = 15.0
    stalled_s: float = 10.0

    def __post_init__(self) -> None:
        if min(self.body_bytes_max, self.header_bytes_max) < 1:
            raise ValueError("expected byte limits of 1 or more")
        if min(self.heartbeat_s, self.stalled_s) <= 0:
            raise ValueError("expected heartbeat_s and stalled_s above 0")
