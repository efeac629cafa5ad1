"""`flashfeed top` shows what the worker says of itself, and nothing else."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time

import httpx
import pytest
from conftest import RunningWorker
from rich.console import Console

from flashfeed.cli.top_figures import (
    Answer,
    Figures,
    SessionRow,
    answers,
    figures,
    newest,
    rate,
    session_rows,
)
from flashfeed.cli.top_table import Seen, View, draw

COMMAND = [sys.executable, "-m", "flashfeed.cli.main", "top", "--once", "--every", "0.2"]
PAGE = """\
# TYPE flashfeed_applied_records_total counter
flashfeed_applied_records_total{feed="a",result="applied",tenant="",type="iot"} 30.0
flashfeed_applied_records_total{feed="b",result="applied",tenant="",type="iot"} 12.0
flashfeed_applied_records_total{feed="b",result="late",tenant="",type="iot"} 5.0
# TYPE flashfeed_answers_total counter
flashfeed_answers_total{changed="true",feed="a",query="q",tenant="",type="iot",value="x"} 7.0
flashfeed_answers_total{changed="false",feed="a",query="q",tenant="",type="iot",value="x"} 3.0
# TYPE flashfeed_engine_tokens_total counter
flashfeed_engine_tokens_total{kind="ingest"} 1000.0
flashfeed_engine_tokens_total{kind="flash"} 200.0
# TYPE flashfeed_engine_decode_seconds_total counter
flashfeed_engine_decode_seconds_total{kind="ingest"} 1.5
flashfeed_engine_decode_seconds_total{kind="flash"} 0.5
# TYPE flashfeed_dead_letters_total counter
flashfeed_dead_letters_total{reason="decode"} 2.0
# TYPE flashfeed_engine_jobs gauge
flashfeed_engine_jobs{kind="ingest"} 1.0
flashfeed_engine_jobs{kind="flash"} 2.0
# TYPE flashfeed_sessions gauge
flashfeed_sessions 5.0
# TYPE flashfeed_consumer_lag_records gauge
flashfeed_consumer_lag_records{partition="0",topic="t"} 0.0
flashfeed_consumer_lag_records{partition="3",topic="t"} 40.0
# TYPE flashfeed_consumer_lag_seconds gauge
flashfeed_consumer_lag_seconds{partition="0",topic="t"} 0.0
flashfeed_consumer_lag_seconds{partition="3",topic="t"} 90.0
"""


def shown(view: View, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, start: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.split()


def test_a_page_is_summed_over_its_labels() -> None:
    now = figures(PAGE, 10.0)
    assert now == Figures(
        at_s=10.0,
        sessions=5,
        jobs=3,
        counters={"records": 42, "answers": 10, "device_s": 2.0, "dead_letters": 2},
        tokens={"ingest": 1000, "flash": 200},
        lag={("t", 0): (0, 0), ("t", 3): (40, 90)},
    )


def test_a_tenants_page_says_little_and_nothing_is_made_up() -> None:
    now = figures("# TYPE flashfeed_sessions gauge\nflashfeed_sessions 2.0\n", 1.0)
    assert now == Figures(at_s=1.0, sessions=2)
    text = shown(View("12:00:00", 0, [Seen("http://w:1", now, now)]))
    assert row(text, "w:1") == ["w:1", "2", *9 * "–"]
    assert "tokens:" not in text


def test_a_rate_is_over_the_time_between() -> None:
    first, second = Figures(10.0, counters={"answers": 10}), Figures(14.0, counters={"answers": 18})

    def answered(one: Figures) -> float:
        return one.counters["answers"]

    assert rate(first, second, answered) == 2
    assert rate(None, second, answered) is None
    assert rate(second, second, answered) is None
    started_again = Figures(16.0, counters={"answers": 4})
    assert rate(second, started_again, answered) == 2


def test_the_workers_line_has_rates_and_what_is_behind() -> None:
    before = figures(PAGE, 10.0)
    later = PAGE.replace("} 30.0", "} 50.0").replace("} 1000.0", "} 1300.0")
    later = later.replace('{kind="ingest"} 1.5', '{kind="ingest"} 2.5').replace("} 7.0", "} 8.0")
    text = shown(View("12:00:00", 0, [Seen("http://w:1", figures(later, 12.0), before)]))
    #                         sess rec/s upd/s ans/s  tok/s  busy  jobs lag   age     dead
    assert row(text, "w:1")[1:] == ["5", "10", "–", "0.5", "150", "50%", "3", "40", "90", "s", "2"]
    assert row(text, "t[3]") == ["t[3]", "40", "90", "s"]
    assert "t[0]" not in text
    assert "ingest 1300 (150/s), flash 200, generate 0" in text
    assert "answers: 11" in text


def test_a_worker_that_does_not_answer_is_said_to() -> None:
    workers = [Seen("http://w:1", None, problem="connection refused"), Seen("http://w:2", None)]
    text = shown(View("12:00:00", 0, workers))
    assert "0 of 2 workers, 0 sessions  2 not answering" in text
    assert "connection refused" in text


def test_a_session_is_a_row_with_its_answers() -> None:
    given = (Answer("trend", "up", 0.75, True), Answer("what", "a b\nc " + 40 * "x", 0.5, False))
    sessions = [
        SessionRow("AAPL", "ohlcv", 17, 3, 421, 1024, True, 99_000, given),
        SessionRow("MSFT", "ohlcv", 2, 0, 40, 1024, False, 1_000),
    ]
    text = shown(View("12:00:00", 100_000, [], sessions, 14))
    assert row(text, "AAPL") == ["AAPL", "trend", "0.75", "up", "ohlcv", "17", "3", "421", "1", "s"]
    assert f"what 0.50 a b c {21 * 'x'}…" in text
    assert row(text, "MSFT") == ["MSFT", "ohlcv", "2", "0", "40", "99", "s"]
    assert "and 12 more" in text


def test_it_fits_80_columns() -> None:
    before, now = figures(PAGE, 10.0), figures(PAGE, 12.0)
    given = (Answer("a-long-question-name", 40 * "x", 0.5, False),)
    one = SessionRow("a-session", "ohlcv", 17_123, 3, 65_536, 1024, True, 99_000, given)
    workers = [Seen("http://192.168.100.200:8080", now, before)]
    text = shown(View("12:00:00", 100_000, workers, [one], 1), width=80)
    [line] = [line for line in text.splitlines() if line.startswith("a-session")]
    assert "a-long-question… 0.50 xxx" in line  # the answer alone is cut
    assert line.split()[-6:] == ["ohlcv", "17123", "3", "65536", "1", "s"]
    assert row(text, "192.168.100")[-1] == "2"


def test_nothing_from_outside_moves_the_cursor() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]\r\x9b1A"
    one = SessionRow(evil, "iot", 1, 0, 1, 1, False, 0, (Answer(evil, evil, 1.0, True),))
    text = shown(View("12:00:00", 0, [Seen(f"http://{evil}", None, problem=evil)], [one], 1))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "[red]" in text  # is no markup


def test_a_session_of_several_lists_is_shown_once_and_as_it_is_newest() -> None:
    old = SessionRow("a", "iot", 4, 0, 1, 1, False, 50)
    new, other = old._replace(version=5, used_ms=60), old._replace(session_id="b", used_ms=70)
    assert newest([[old, other], [new]]) == [other, new]


def told(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--url", url, *more],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "", "COLUMNS": "160"},
    )  # fmt: skip


def said(http: httpx.Client, session: str) -> tuple[Figures, SessionRow, tuple[Answer, ...]]:
    """What the worker says of itself and a session."""
    rows = session_rows(http.get("/v1/sessions").json())
    [one] = [one for one in rows if one.session_id == session]
    answered = answers(http.get(f"/v1/sessions/{session}/flash").json())
    page = http.get("/metrics").raise_for_status().text
    # The age of what waits is another one each time.
    return figures(page, 0.0)._replace(lag={}), one._replace(used_ms=0), answered


@pytest.mark.broker
@pytest.mark.model
def test_its_figures_are_the_workers_own(worker: RunningWorker) -> None:
    body = {
        "type": "iot",
        "prompt": "You watch a sensor.",
        "flash": [{"query": "Is it high?", "name": "level", "choices": ["high", "low"]}],
    }
    with httpx.Client(base_url=worker.url, timeout=60) as http:
        made = http.post("/v1/sessions/init", json=body)
        assert made.status_code == 200, made.text
        session = made.json()["session_id"]
        place = f"/v1/sessions/{session}"
        for value in range(3):
            data = [{"sid": "s", "val": value, "timestamp": 1_700_000_000 + value}]
            sent = http.post(f"{place}/stream/push", json={"data": data})
            assert sent.status_code == 200, sent.text
        while http.get(f"{place}/state").json()["data_count"] < 3:
            time.sleep(0.1)
        # While the worker still works its figures move: asked until they stood still.
        for _ in range(20):
            before = said(http, session)
            ran = told(worker.url)
            if said(http, session) == before:
                break
        else:
            raise AssertionError("the worker does not come to rest")
        http.delete(place)
    now, one, answered = before
    assert ran.returncode == 0, ran.stderr
    cells = row(ran.stdout, worker.url.partition("//")[2])
    assert cells[1] == f"{now.sessions:.0f}"
    assert cells[-1] == f"{now.counters['dead_letters']:.0f}"
    for kind in ("ingest", "flash"):
        assert now.tokens[kind] > 0
        assert f"{kind} {now.tokens[kind]:.0f}, " in ran.stdout
    assert f"answers: {now.counters['answers']:.0f}\n" in ran.stdout
    [answer] = answered
    shown_answer = ["level", f"{answer.confidence:.2f}", answer.value]
    shown_state = ["iot", str(one.version), "0", str(one.tokens)]
    assert row(ran.stdout, session)[1:8] == [*shown_answer, *shown_state]


def test_without_a_worker_it_ends_with_1() -> None:
    ran = told("http://127.0.0.1:9")
    assert ran.returncode == 1
    assert "0 of 1 workers" in ran.stdout
    assert "attempts failed" in ran.stdout or "refused" in ran.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [(("--every", "0"), "--every"), (("--rows", "-1"), "--rows"), (("--url", "w:1"), "--url")],
)
def test_what_it_cannot_do_is_said(more: tuple[str, ...], said: str) -> None:
    ran = told("http://127.0.0.1:9", *more)
    assert (ran.returncode, said in ran.stderr) == (2, True), ran.stderr


def test_live_it_wants_a_terminal() -> None:
    command = [one for one in COMMAND if one != "--once"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "flashfeed top --once" in ran.stderr
