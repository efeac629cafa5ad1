from __future__ import annotations

import pytest

from flashfeed.codecs.text_event import EventLine
from flashfeed.models.records import Event


def event(sev: int = 3, cnt: int = 5, src: str = "auth-db") -> Event:
    return Event(src=src, sev=sev, cat="login_failed", cnt=cnt)


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (event(), None, "login_failed auth-db sev 3 x5\n"),
        (event(4, 1), event(3), "login_failed auth-db sev 4 +1\n"),
        (event(1), event(3), "login_failed auth-db sev 1 -2 x5\n"),
        (event(3), event(3), "login_failed auth-db sev 3 x5\n"),
        (event(src="a sev 9\n"), None, 'login_failed "a sev 9\\u000a" sev 3 x5\n'),
        (event(src="10.0.0.1:80"), None, 'login_failed "10.0.0.1:80" sev 3 x5\n'),
    ],
)
def test_lines(record: Event, previous: Event | None, line: str) -> None:
    assert EventLine().render(record, previous) == line
