"""`flashfeed heads`: a head leaves as a file and comes back where it belongs alone."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.head_learning import HeadLearning, reservoir_key
from flashfeed.agents.session_learning import head_name
from flashfeed.cli.main import main
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.cli.settings import load
from flashfeed.cli.whole_topics import read_topics
from flashfeed.engine import fastest_form, find_packaged_model
from flashfeed.engine.model_hash import model_hash
from flashfeed.heads.head_file import Subject, read_head, write_head
from flashfeed.models.events import JSON, FlashReady, iso_time
from flashfeed.models.learning import ExampleRecord
from flashfeed.models.session import AnsweredBy
from flashfeed.models.spec_hash import spec_hash

pytestmark = [pytest.mark.model, pytest.mark.broker]

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


def test_a_question_with_a_rule_of_its_own_teaches_the_same(
    home: Path, exported: Path, tmp_path: Path
) -> None:
    rule = """learn = true
outcome = { after = "1 record", label = "yes if close > close@0 else no" }
"""
    (tmp_path / "f.toml").write_text(CONFIG.partition("[templates.market.outcomes")[0] + rule)
    asked = [spec_hash(load(one / "f.toml").templates["market"].spec()) for one in (home, tmp_path)]
    (tmp_path / "records").write_bytes((home / "records").read_bytes())
    (tmp_path / "answers").write_text((home / "answers").read_text().replace(*asked))
    assert export(tmp_path, tmp_path / "own.head") == 0
    own, others = (read_head(file.read_bytes())[0] for file in (tmp_path / "own.head", exported))
    assert own.examples == others.examples
    assert len(own.examples) == N - 1


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


# -- the group's heads, on its topics -------------------------------------------------


@pytest.fixture
def group(home: Path, exported: Path, broker: str, tmp_path: Path) -> Iterator[Path]:
    """A configuration of a group with a question that learns; its topics are there."""
    config = tmp_path / "group.toml"
    prefix = tmp_path.name.replace("_", "-")
    names = "\n".join(f'{one} = "{prefix}.{one}"' for one in ("heads", "reservoirs", "examples"))
    asked = CONFIG.replace('name = "rises"', 'name = "rises"\nlearn = true')
    config.write_text(f'[kafka]\nbrokers = "{broker}"\n[topics]\n{names}\n{asked}')
    topics = load(config).topics
    asyncio.run(made(broker, [topics.heads, topics.reservoirs, topics.examples]))
    yield config


async def made(brokers: str, topics: list[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(one, 1, 1) for one in topics])
    await admin.close()


async def sent(brokers: str, messages: list[tuple[str, bytes, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=brokers) as producer:
        for topic, key, value in messages:
            await producer.send_and_wait(topic, value, key=key)


def test_a_head_comes_into_a_group_and_out_of_it_as_it_was(
    group: Path, exported: Path, broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(group)
    [query] = config.templates["market"].spec().flash
    head, subject = read_head(exported.read_bytes())
    name = head_name(config.templates["market"].spec(), query, subject.model)
    mine = tmp_path / "mine.head"  # the question learns here: another spec
    mine.write_bytes(write_head(head, name.subject))
    where = ("-c", group, "--template", "market", "--question", "rises")
    assert run("import", exported, *where) == 2
    assert "expected the spec" in capsys.readouterr().err
    assert run("import", mine, *where) == 0
    assert f"{N - 1} examples for the head {name.key}" in capsys.readouterr().out
    [messages] = asyncio.run(read_topics(config, [config.topics.examples], ""))
    # What the owner of the partition does with them.
    learning = HeadLearning.new(name)
    written = []
    for key, value in [*messages, *messages]:  # at least once
        assert key == name.key.encode()
        record = msgspec.json.decode(value or b"", type=ExampleRecord)
        if learning.knows(record.id):
            continue
        learnt = learning.learn(record)
        place = reservoir_key(name.key, learnt.number)
        written.append((config.topics.reservoirs, place, msgspec.json.encode(learnt)))
    assert write_head(learning.head, name.subject) == mine.read_bytes()
    written.append((config.topics.heads, name.key.encode(), learning.message(0)))
    asyncio.run(sent(broker, written))
    assert run("list", "-c", group) == 0
    assert f"{name.key} rises: 'Will it rise?' of yes, no: 59 labels" in capsys.readouterr().out
    again = tmp_path / "again.head"
    assert run("export", "-c", group, "--question", "rises", "--out", again) == 0
    assert again.read_bytes() == mine.read_bytes()
    assert run("import", mine, *where) == 2
    assert "the group has a head" in capsys.readouterr().err
    assert run("export", "-c", group, "--question", "falls", "--out", tmp_path / "x") == 2
    assert f"there are {name.key} (rises)" in capsys.readouterr().err
