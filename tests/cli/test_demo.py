"""The demo, short: it ends by itself with the right code and leaves no process behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flashfeed.cli.demo_board import Board, Sent
from flashfeed.models.session import WindowSpec

pytestmark = [pytest.mark.broker, pytest.mark.model]


def test_a_short_demo_ends_well_and_cleans_up() -> None:
    command = [sys.executable, "-m", "flashfeed.cli.main", "demo", "--plain"]
    command += ["--records", "2", "--rate", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no record was lost" in done.stdout
    assert "10 in 5 sessions" in done.stdout
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "flashfeed-demo-" not in left


def event(version: int, last: int, **more: object) -> dict[str, object]:
    origin = {"topic": "t", "partition": 0, "first": last, "last": last}
    return {"session_id": "s", "data_version": version, "origins": [origin], **more}


def answer(version: int, last: int) -> dict[str, object]:
    return event(version, last, query="?", name="q", value="yes", confidence=0.5)


def updated(version: int, last: int, count: int) -> dict[str, object]:
    more = {"data_count": count, "decoded_tokens": 9, "update_ms": 1.0, "tokens": 5}
    return event(version, last, **more)


def test_the_verdict_sees_what_is_missing() -> None:
    board = Board({"s": ("q",)})
    for offset in (0, 1):
        board.note_sent(("t", 0, offset), Sent("s", "x", 10.0))
    assert not board.complete()
    board.note_event("1", updated(1, 0, 1), 11.0)
    board.note_event("2", answer(1, 0), 11.0)
    assert [problem for problem in board.lost() if "offset 1" in problem]
    board.note_event("3", updated(2, 1, 2), 12.0)
    assert board.unanswered() == ["s/q"]
    board.note_event("4", answer(2, 1), 12.5)
    assert board.complete()
    assert not board.lost()
    assert board.latencies_s == [1.0, 2.5]
    board.note_event("4", answer(2, 1), 13.0)
    assert (board.repeats, board.flash_ready) == (1, 2)


def test_a_session_holds_what_its_window_keeps() -> None:
    board = Board({"s": ()}, {"s": WindowSpec("exact", 2)})
    for offset in range(5):
        board.note_sent(("t", 0, offset), Sent("s", "x", 10.0))
    board.note_event("1", {**updated(1, 4, 3), "origins": []}, 11.0)
    assert not [problem for problem in board.lost() if "holds" in problem]
    board.note_event("2", updated(2, 4, 5), 12.0)
    assert [problem for problem in board.lost() if "holds 5 records, not 3 of 5" in problem]


def test_an_answer_may_overtake_the_acknowledgement() -> None:
    board = Board({"s": ("q",)})
    board.note_event("1", updated(1, 0, 1), 11.0)
    board.note_event("2", answer(1, 0), 11.0)
    board.note_sent(("t", 0, 0), Sent("s", "x", 10.0))
    assert board.complete()
    assert board.latencies_s == [1.0]
