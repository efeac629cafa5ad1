"""`flashfeed heads`: a head leaves as a file and comes back where it belongs alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flashfeed.cli.main import main
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.cli.settings import load
from flashfeed.engine import fastest_form, find_packaged_model
from flashfeed.engine.model_hash import model_hash
from flashfeed.heads.head_file import Subject, read_head, write_head
from flashfeed.models.events import JSON, FlashReady, iso_time
from flashfeed.models.session import AnsweredBy
from flashfeed.models.spec_hash import spec_hash

pytestmark = pytest.mark.model

N = 60
CONFIG = """
[feeds.candles]
topics = ["candles"]
preset = "cryptofeed"
template = "market"
session = "{key}"

[templates.market]
type = "ohlcv"

[[templates.market.flash]]
name = "rises"
query = "Will it rise?"
choices = ["yes", "no"]

[templates.market.outcomes.rises]
after = "1 record"
label = "yes if close > close@0 else no"
"""


def event(row: dict[str, Any], version: int, share: float, by: AnsweredBy) -> bytes:
    return JSON.encode(
        FlashReady(
            session_id="NASDAQ:AAPL-USD:1d", type="ohlcv", id=1, name="rises",
            query="Will it rise?", value="yes", confidence=share, logit_gap=1.0,
            probabilities={"yes": share, "no": 1 - share}, previous=None, changed=False,
            data_version=version, event_time=iso_time(row["start"]),
            evaluated_at="2026-01-01T00:00:00.000+00:00", origins=(), records_first=0,
            records_last=version, answered_by=by,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, records, and answers of the spec that it asks with."""
    folder = tmp_path_factory.mktemp("heads")
    (folder / "f.toml").write_text(CONFIG)
    model = model_hash(fastest_form(find_packaged_model()))
    by = AnsweredBy(model, spec_hash(load(folder / "f.toml").templates["market"].spec()))
    rows = [row for _, row in zip(range(N), candles("AAPL"), strict=False)]
    (folder / "records").write_bytes(b"\n".join(cryptofeed_json("AAPL", row) for row in rows))
    draw = random.Random(1)
    answers = [event(row, at, draw.random(), by) for at, row in enumerate(rows, 1)]
    (folder / "answers").write_bytes(b"\n".join(answers))
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["heads", *map(str, arguments)])
    return int(ended.value.code or 0)


def export(home: Path, out: Path, answers: str = "answers", question: str = "rises") -> int:
    return run(
        "export", "-c", home / "f.toml", "--feed", "candles", "--records", home / "records",
        "--answers", home / answers, "--question", question, "--out", out,
    )  # fmt: skip


def take(home: Path, file: Path, to: Path, question: str = "rises") -> int:
    return run(
        "import", file, "-c", home / "f.toml", "--template", "market", "--question", question,
        "--to", to,
    )  # fmt: skip


@pytest.fixture
def exported(home: Path, tmp_path: Path) -> Path:
    out = tmp_path / "rises.head"
    assert export(home, out) == 0
    return out


def test_an_exported_head_is_what_the_answers_taught(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, subject = read_head(exported.read_bytes())
    assert head.version == N - 1 == len(head.examples)
    assert (subject.query, subject.choices) == ("Will it rise?", ("yes", "no"))
    assert run("show", exported, "--json") == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["version"] == sum(shown["labels"].values()) == N - 1
    assert shown["leading"] == head.leading
    assert run("show", exported) == 0
    assert "Will it rise?" in capsys.readouterr().out
    (exported.parent / "other.head").write_bytes(exported.read_bytes()[:-1])
    assert run("list", exported.parent) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("other.head: expected a whole head, its SHA-256 is another")
    assert out[1].startswith("rises.head: 'Will it rise?' of yes, no: 59 labels")


def test_a_head_is_taken_where_it_belongs_and_nowhere_else(
    home: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "heads"
    assert take(home, exported, folder) == 0
    [file] = folder.iterdir()
    assert file.name == "market-rises.head"
    assert file.read_bytes() == exported.read_bytes()
    assert take(home, exported, folder) == 2
    assert "there is a head already" in capsys.readouterr().err
    head, subject = read_head(exported.read_bytes())
    for change, said in (
        ({"model": "x"}, f"expected the model {subject.model!r}, got 'x'"),
        ({"spec": "x"}, f"expected the spec {subject.spec!r}, got 'x'"),
        ({"query": "Up?"}, "expected the query 'Will it rise?', got 'Up?'"),
        ({"choices": ("no", "yes")}, "expected the choices ('yes', 'no')"),
    ):
        other: Subject = msgspec.structs.replace(subject, **change)
        strange = tmp_path / "strange.head"
        strange.write_bytes(write_head(head, other))
        assert take(home, strange, tmp_path / "elsewhere") == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    assert take(home, exported, folder, question="falls") == 2
    assert "no question with choices 'falls': rises" in capsys.readouterr().err


def test_what_cannot_be_exported_is_named(
    home: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(home, exported) == 2
    assert "expected a new file" in capsys.readouterr().err
    assert export(home, tmp_path / "x", question="falls") == 2
    assert "no question with an outcome rule 'falls'; there are rises" in capsys.readouterr().err
    mixed = (home / "answers").read_text().replace('"model":"', '"model":"other', 1)
    (home / "mixed").write_text(mixed)
    assert export(home, tmp_path / "x", answers="mixed") == 2
    assert "expected answers to rises of one model and spec, got 2" in capsys.readouterr().err
    assert run("show", tmp_path / "nothing") == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "bad").write_bytes(b"\x80\x04pickle")
    assert run("show", tmp_path / "bad") == 2
    assert "expected a flashfeed head" in capsys.readouterr().err
