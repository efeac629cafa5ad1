"""`flashfeed score`: recorded answers held against what the records turned out to be."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from flashfeed.cli.main import main
from flashfeed.cli.replay_files import line
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.models.events import JSON, FlashReady, iso_time
from flashfeed.models.session import AnsweredBy

CONFIG = """
[feeds.candles]
topics = ["candles"]
preset = "cryptofeed"
template = "market"
session = "{{key}}"

[templates.market]
type = "ohlcv"

[[templates.market.flash]]
name = "rises"
query = "Will it rise?"
choices = ["yes", "no"]

{outcome}
"""
OUTCOME = """
[templates.market.outcomes.rises]
after = "1 record"
label = "yes if close > close@0 else no"
"""
INLINE = """
learn = true
outcome = { after = "1 record", label = "yes if close > close@0 else no" }
"""
N = 120


def event(row: dict[str, Any], version: int, share: float, session: str) -> bytes:
    """A flash_ready event as the product writes it."""
    return JSON.encode(
        FlashReady(
            session_id=session,
            type="ohlcv",
            id=1,
            name="rises",
            query="Will it rise?",
            value="yes" if share > 0.5 else "no",
            confidence=max(share, 1 - share),
            logit_gap=1.0,
            probabilities={"yes": share, "no": 1 - share},
            previous=None,
            changed=False,
            data_version=version,
            event_time=iso_time(row["start"]),
            evaluated_at="2026-01-01T00:00:00.000+00:00",
            origins=(),
            records_first=0,
            records_last=version,
            answered_by=AnsweredBy("m", "s"),
        )
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A configuration, records and answers; the answers know nearly everything."""
    rows = [row for _, row in zip(range(N), candles("AAPL"), strict=False)]
    config, records, answers = (tmp_path / name for name in ("f.toml", "records", "answers"))
    config.write_text(CONFIG.format(outcome=OUTCOME))
    records.write_bytes(b"\n".join(cryptofeed_json("AAPL", row) for row in rows))
    draw = random.Random(1)
    lines = [b'{"session_id": "x", "data_version": 3}']
    for number, row in enumerate(rows):
        rises = rows[min(number + 1, N - 1)]["close"] > row["close"]
        share = 0.9 if rises != (draw.random() < 0.05) else 0.1
        lines.append(event(row, number + 1, share, "NASDAQ:AAPL-USD:1d"))
    answers.write_bytes(b"\n".join([*lines, *lines[-3:]]))  # the last ones came twice
    return config, records, answers


def run(config: Path, records: Path, answers: Path, *more: str, feed: str = "candles") -> int:
    options = ["-c", config, "--feed", feed, "--records", records, "--answers", answers]
    with pytest.raises(SystemExit) as ended:
        main(["score", *map(str, options), *more])
    return int(ended.value.code or 0)


def test_the_scores_of_recorded_answers(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*files, "--json") == 0
    score = json.loads(capsys.readouterr().out)
    assert (score["question"], score["labels"]) == ("rises", N - 1)
    published = score["published"]
    assert published["accuracy"] == pytest.approx(0.95, abs=0.05)
    assert published["brier"] == pytest.approx(0.05, abs=0.04)
    assert published["skill_base_rate"] > 0.6
    assert published["auc"] > 0.9
    assert run(*files) == 0
    out = capsys.readouterr().out
    assert f"{N} records, " in out
    assert "rises" in out and "published" in out and "learnt" in out
    assert " leads\n" in out


def test_a_corrected_record_counts_as_it_was_corrected(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    run(config, records, answers, "--json")
    before = json.loads(capsys.readouterr().out)
    lines = records.read_bytes().splitlines()
    wrong = [json.loads(line) | {"close": 1.0, "low": 0.5} for line in lines]
    records.write_bytes(b"\n".join([*(json.dumps(one).encode() for one in wrong), *lines]))
    run(config, records, answers, "--json")
    assert json.loads(capsys.readouterr().out) == before


def test_a_rule_in_the_question_itself_is_scored_by(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    run(config, records, answers, "--json")
    before = json.loads(capsys.readouterr().out)
    other_way = OUTCOME.replace(">", "<")
    for outcome in (INLINE, INLINE + other_way):  # the question's own goes before
        config.write_text(CONFIG.format(outcome=outcome))
        assert run(config, records, answers, "--json") == 0
        assert json.loads(capsys.readouterr().out) == before
    config.write_text(CONFIG.format(outcome="learn = true" + other_way))
    assert run(config, records, answers, "--json") == 0
    assert json.loads(capsys.readouterr().out)["published"]["accuracy"] < 0.2


def test_what_a_replay_wrote_is_scored_the_same(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    run(config, records, answers, "--json")
    before = capsys.readouterr().out
    events = [one for one in answers.read_bytes().splitlines() if b"probabilities" in one]
    answers.write_bytes(b"".join(line(msgspec.json.decode(one, type=FlashReady)) for one in events))
    assert run(config, records, answers, "--json") == 0
    assert capsys.readouterr().out == before


def test_a_session_that_was_deleted_and_made_again_has_two_lives(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions begin at 1 again; each answer keeps its own label."""
    config, records, answers = files
    run(config, records, answers, "--json")
    before = json.loads(capsys.readouterr().out)
    assert before["repeated"] == 3
    events = [json.loads(one) for one in answers.read_bytes().splitlines()][1:]
    half = N // 2
    lives = [one | {"data_version": (one["data_version"] - 1) % half + 1} for one in events]
    assert max(one["data_version"] for one in lives) == half
    # Whose outcome comes so late that the same version of both lives waits for it, too.
    for after in ("1 record", f"{half + 10} records"):
        config.write_text(CONFIG.format(outcome=OUTCOME).replace("1 record", after))
        scored = []
        for told in (events, lives):
            answers.write_text("\n".join(map(json.dumps, told)))
            assert run(config, records, answers, "--json") == 0
            scored.append(json.loads(capsys.readouterr().out))
        assert scored[0] == scored[1]
        assert scored[0]["labels"] == N - int(after.split()[0])
        assert scored[0]["dropped"] == 0


def test_answers_that_cannot_be_held_against_anything_are_counted(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    events = [json.loads(one) for one in answers.read_bytes().splitlines()][1 : N + 1]
    events[3]["event_time"] = None
    events[4]["probabilities"] = {"up": 0.5, "down": 0.5}
    answers.write_text("\n".join(map(json.dumps, events)))
    assert run(config, records, answers, "--json") == 0
    score = json.loads(capsys.readouterr().out)
    assert (score["labels"], score["unfit"], score["repeated"]) == (N - 3, 2, 0)
    assert run(config, records, answers) == 0
    assert "2 answers were left out: no event time, or other choices" in capsys.readouterr().out


def test_a_version_that_was_done_again_counts_as_it_was_last(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    run(config, records, answers, "--json")
    before = json.loads(capsys.readouterr().out)
    events = [json.loads(one) for one in answers.read_bytes().splitlines()][1 : N + 1]
    wrong = [one | {"probabilities": {"yes": 0.5, "no": 0.5}} for one in events]
    answers.write_text("\n".join(map(json.dumps, [*wrong, *events])))
    assert run(config, records, answers, "--json") == 0
    assert json.loads(capsys.readouterr().out) == before | {"repeated": N}


def test_answers_of_other_sessions_have_no_label(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    answers.write_text(answers.read_text().replace("AAPL", "IBM"))
    assert run(config, records, answers, "--json") == 1
    score = json.loads(capsys.readouterr().out)
    assert (score["labels"], score["dropped"], score["repeated"]) == (0, N, 3)
    assert run(config, records, answers) == 1
    out = capsys.readouterr().out
    assert f"{N} answers were dropped: no record" in out
    assert "3 answers came again" in out


def test_what_is_missing_or_wrong_is_named(
    files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, records, answers = files
    assert run(config, records, answers, feed="other") == 2
    assert "no feed 'other'; there are candles" in capsys.readouterr().err
    assert run(config, tmp_path / "nothing", answers) == 2
    assert "nothing: No such file" in capsys.readouterr().err
    bad = tmp_path / "bad"
    bad.write_text('{"probabilities": 7}\n')
    assert run(config, records, bad) == 2
    assert "bad:1: expected a flash_ready event" in capsys.readouterr().err
    bad.write_text('{"session_id": "x", "data_version": 3}\n7\n')
    assert run(config, records, bad) == 2
    assert "bad: no flash_ready event in it" in capsys.readouterr().err
    bad.write_text(answers.read_text().replace("2000-03", "2000-33"))
    assert run(config, records, bad) == 2
    assert "expected an event_time" in capsys.readouterr().err
    config.write_text(CONFIG.format(outcome=""))
    assert run(config, records, answers) == 2
    assert "templates.market has no outcomes" in capsys.readouterr().err


class Page(HTMLParser):
    """The page's tags, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_has_the_figures_and_needs_nothing_else(
    files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _records, _answers = files
    evil = "Will it <script src='//x/y.js'>rise</script> & \\\"fall\\\"?"
    config.write_text(config.read_text().replace("Will it rise?", evil))
    file = tmp_path / "score.html"
    assert run(*files, "--json", "--html", str(file)) == 0
    score = json.loads(capsys.readouterr().out)
    text = file.read_text()
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "a"}
    assert all(not {"src", "href", "style"} & attrs.keys() for _, attrs in page.tags)
    assert all(not one.startswith("on") for _, attrs in page.tags for one in attrs)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert evil.replace("\\", "") in page.text
    for kind in ("published", "learnt"):
        for figure in ("accuracy", "brier", "skill_base_rate", "log_loss", "auc", "ece"):
            assert f"{score[kind][figure]:.3f}" in page.text
    drawn = [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", text)]
    assert len(drawn) == 4  # of each kind how reliable it is, and how it learnt
    for svg in drawn[::2]:
        said = [one.text or "" for one in svg.iter("title")]
        assert sum(int(one.split()[0]) for one in said) == N - 1
        assert all("95%" in one for one in said)
    for svg in drawn:
        for mark in svg.iter("circle"):
            assert 0 <= float(mark.get("cx", "-1")) <= 440
            assert 0 <= float(mark.get("cy", "-1")) <= 300
    assert "prefers-color-scheme:dark" in text


def test_a_page_without_labels_says_so(
    files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _config, _records, answers = files
    answers.write_text(answers.read_text().replace("AAPL", "IBM"))
    file = tmp_path / "score.html"
    assert run(*files, "--html", str(file)) == 1
    assert file.read_text().count("no answer has a label") == 2
    assert run(*files, "--html", str(tmp_path / "no" / "folder")) == 2
    assert "No such file or directory" in capsys.readouterr().err
