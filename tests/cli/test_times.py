"""Times as a person writes them."""

from __future__ import annotations

import pytest

from flashfeed.cli.times import parse_time, show_time
from flashfeed.models.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-01T00:01", 60_000),
        ("1970-01-01T02:00:01+02:00", 1000),
        ("1.5h", 2_000_000 - 5_400_000),
        ("10s", 1_990_000),
    ],
)
def test_a_time_is_utc_or_so_long_ago(text: str, ms: int) -> None:
    assert parse_time(text, now_s=2000.0) == ms


@pytest.mark.parametrize("text", ["", "soon", "10", "2026-13-01"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=f"got {text!r}"):
        parse_time(text, now_s=0.0)


def test_a_time_is_shown_in_utc() -> None:
    assert show_time(86_400_000) == "1970-01-02T00:00:00Z"
