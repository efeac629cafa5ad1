"""Times as a person writes them: `2026-11-21`, `2026-11-21T10:00`, `10m` ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from flashfeed.models.errors import ConfigError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_time(text: str, now_s: float) -> int:
    """The time in milliseconds since 1970: ISO 8601 (UTC where it names no zone), or so long
    before now. Raises ConfigError."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago:
        return int((now_s - float(ago[1]) * UNITS_S[ago[2]]) * 1000)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"expected a time such as 2026-11-21T10:00 (UTC) or 2h (ago), got {text!r}"
        ) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def show_time(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
