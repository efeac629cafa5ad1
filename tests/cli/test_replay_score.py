"""A replay as a backtest: the scorecard of a range, and two configurations side by side."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from glucose_feed import glucose_feed

from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.main import main
from flashfeed.cli.replay_score import Judge, compared, scorecard, verdict, wants_score
from flashfeed.cli.sample_data import candles, cryptofeed_json, glucose
from flashfeed.cli.settings import load
from flashfeed.engine import Update
from flashfeed.heads.paired import Difference
from flashfeed.models.errors import ConfigError
from flashfeed.models.events import FlashReady, iso_time
from flashfeed.models.messages import PackedRecord, Records
from flashfeed.models.session import Answer, AnsweredBy

CONFIG = """
[kafka]
brokers = "{brokers}"

[engine]
context_tokens = 1024
sessions_max = 4
threads = 1

[feeds.candles]
topics = ["candles"]
preset = "cryptofeed"
template = "market"
session = "stock"

[templates.market]
type = "ohlcv"
window = {{ items = 4 }}

[[templates.market.flash]]
name = "rises"
query = "Will it rise?"
choices = ["yes", "no"]

[templates.market.outcomes.rises]
after = "1 record"
label = "yes if close > close@0 else no"
"""
N = 200
CANDLES = 26
WHOLE = ("--from-offset", "candles:0:0", "--to-offset", f"candles:0:{CANDLES}")


def config(home: Path, brokers: str = "127.0.0.1:9", **changes: str) -> Path:
    path = home / f"{len([*home.iterdir()])}.toml"
    text = CONFIG.format(brokers=brokers)
    for old, new in changes.items():
        text = text.replace({"name": '"rises"', "query": "Will it rise?"}[old], new)
    path.write_text(text)
    return path


def judged(path: Path, right: float, seed: int = 3) -> Judge:
    """N answers, `right` of them right and all of them as sure."""
    draw = random.Random(1)
    judge = Judge(load(path))
    closes = [draw.random() for _ in range(N + 1)]
    draw = random.Random(seed)
    for number in range(N):
        start, close = float(number * 60), closes[number]
        fields = {"o": close, "h": close, "l": close, "c": close, "v": 1.0, "timestamp": start}
        packed = (PackedRecord(number, 0, 0, fields),)
        judge.heard("stock", Records(type="ohlcv", records=packed, template="market"))
        truth = closes[number + 1] > close
        share = 0.8 if truth == (draw.random() < right) else 0.2
        shares = {"yes": share, "no": 1 - share}
        judge.take([
            FlashReady("stock", "ohlcv", 1, "rises", "?", "yes", 0.8, 1.0, shares, None, False,
                       number + 1, iso_time(start), "", (), 0, number, AnsweredBy("m", "s"))
        ])  # fmt: skip
    return judge


def test_the_better_of_two_is_told_and_two_alike_are_not(tmp_path: Path) -> None:
    path = config(tmp_path)
    good, bad = judged(path, 0.9), judged(path, 0.5)
    said = compared(good, bad)
    assert said.count("question") == 2
    line = next(one for one in said.splitlines() if one.startswith("rises  ") and "labels;" in one)
    assert f"{N - 1} labels" in line and line.endswith("-c is better")
    assert compared(bad, good).count("--against is better") >= 1
    assert "neither is better" in compared(good, good)
    assert f"{math.log(1 / 0.8):.2f}"[:3] in said


def test_a_rule_in_the_question_itself_is_scored_by(tmp_path: Path) -> None:
    path = config(tmp_path)
    rule = """learn = true
outcome = { after = "1 record", label = "yes if close > close@0 else no" }
"""
    inline = tmp_path / "inline.toml"
    inline.write_text(path.read_text().partition("[templates.market.outcomes")[0] + rule)
    assert wants_score(load(inline))
    assert judged(inline, 0.9).questions().keys() == {"rises"}
    assert scorecard(judged(inline, 0.9)) == scorecard(judged(path, 0.9))


def test_only_what_both_ask_is_compared(tmp_path: Path) -> None:
    other = config(tmp_path)
    other.write_text(other.read_text().replace("rises", "falls"))
    with pytest.raises(ConfigError, match=r"a question of the same name .* rises and falls"):
        compared(Judge(load(config(tmp_path))), Judge(load(other)))


def test_records_that_cannot_be_held_against_anything_are_counted(tmp_path: Path) -> None:
    judge = Judge(load(config(tmp_path)))
    bar = {"o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1.0}
    for kind, fields in (
        ("ohlcv", bar), ("ohlcv", {"text": "x"}), ("ohlcv", bar | {"h": 0.5}),
        ("trade", {"p": 1.0, "q": 1.0}),
    ):  # fmt: skip
        packed = (PackedRecord(0, 0, 0, fields),)
        judge.heard("s", Records(type=kind, records=packed))  # type: ignore[arg-type]
    assert (judge.timeless, judge.trades) == (1, 1)
    assert "1 records have no time" in scorecard(judge)
    assert "1 trades were not" in scorecard(judge)


def test_a_head_reads_the_hidden_states_of_one_model_alone(tmp_path: Path) -> None:
    """A session that was made over HTTP may have another, of another width."""
    judge = Judge(load(config(tmp_path)))
    assert judge.hidden is not None
    for version, (model, state) in enumerate([("m", bytes(4)), ("other", bytes(6))], 1):
        shares, by = {"yes": 0.5, "no": 0.5}, AnsweredBy(model, "s")
        answer = Answer(1, "yes", 0.5, 0.0, probabilities=shares)
        event = FlashReady("stock", "ohlcv", 1, "rises", "?", "yes", 0.5, 0.0, shares, None, False,
                           version, iso_time(1.0), "", (), 0, version, by)  # fmt: skip
        update = Update((answer,), 1, 1, 0, 1, 0.0, 0.0, 1, hidden=(state,))
        judge.hidden.updated("stock", update)
        judge.hidden.published(event)
        judge.take([event])
    assert [one.hidden for one in judge._answers["rises"]] == [bytes(8), b""]


def test_a_difference_in_words() -> None:
    assert verdict(None) == "no label in common"
    few = Difference(3, 0.5, 0.7, -0.2)
    assert verdict(few) == "-0.2000 (0.5000 and 0.7000), 3 labels; too few to say more"
    better = Difference(90, 0.7, 0.5, 0.2, 0.1, 0.3, 0.001, 5)
    assert verdict(better).endswith("95% from +0.1000 to +0.3000, p 0.001: --against is better")


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A topic of real candles, and the same in a file."""
    values = [
        cryptofeed_json("AAPL", row) for _, row in zip(range(26), candles("AAPL"), strict=False)
    ]
    file = tmp_path_factory.mktemp("candles") / "candles.jsonl"
    file.write_bytes(b"\n".join(values))

    async def send(address: str) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        for value in values:
            await producer.send_and_wait("candles", value, partition=0)
        await producer.stop()

    with embedded_broker() as address:
        asyncio.run(send(address))
        yield address, file


def run(*args: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*args])
    assert not ended.value.code


@pytest.mark.broker
@pytest.mark.model
def test_a_replays_scorecard_is_what_score_says_of_it_and_another_wording_is_held_beside(
    brokers: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, file = brokers
    path = config(tmp_path, address)
    other = config(tmp_path, address, query="Is the next close higher?")
    for one in (path, other):  # recorded answers have no hidden states
        one.write_text(f"{one.read_text()}\n[learning]\nhidden_states = false\n")
    out = tmp_path / "answers"
    run("replay", "-c", str(path), *WHOLE, "--out", str(out))
    card = capsys.readouterr().out
    assert "     25" in card  # labels: the last answer waits
    run(
        "score", "-c", str(path), "--feed", "candles", "--records", str(file), "--answers", str(out)
    )
    assert capsys.readouterr().out == f"26 records, 26 answers\n{card}"
    run("replay", "-c", str(path), *WHOLE, "--against", str(other))
    said = capsys.readouterr().out
    assert said.startswith(f"-c\n{card}\n--against\n")
    assert "25 labels; 95% from " in said


READINGS = 90
CGM = """
[kafka]
brokers = "{brokers}"

[engine]
context_tokens = 1024
threads = 1

[learning]
hidden_states = {hidden}
"""


@pytest.mark.broker
@pytest.mark.model
def test_what_is_learnt_is_read_from_the_hidden_states_as_live(
    brokers: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readings in an order in which the last one says nothing of the next: the line says what
    is asked, the hidden state knows it, the probabilities do not."""
    address, _ = brokers
    levels = [row["glucose"] for _, row in zip(range(READINGS), glucose(), strict=False)]
    random.Random(5).shuffle(levels)

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        for at, level in enumerate(levels):
            value = orjson.dumps({"n": "cgm", "v": level, "h": 140, "t": 1e9 + 300 * at})
            await producer.send_and_wait("cgm", value, partition=0)
        await producer.stop()

    asyncio.run(send())
    path, other = tmp_path / "hidden.toml", tmp_path / "logits.toml"
    path.write_text(CGM.format(brokers=address, hidden="true") + glucose_feed(learns=False))
    other.write_text(CGM.format(brokers=address, hidden="false") + glucose_feed(learns=False))
    whole = ("--from-offset", "cgm:0:0", "--to-offset", f"cgm:0:{READINGS}")
    run("replay", "-c", str(path), *whole, "--against", str(other))
    said = capsys.readouterr().out
    first, _, second = said.partition("--against\n")
    assert "hidden leads" in first and "hidden" not in second
    [published, learnt] = [one for one in said.splitlines() if " labels; " in one]
    assert published.startswith("high ") and published.endswith("neither is better")
    assert learnt.endswith("-c is better")


@pytest.mark.parametrize("more", [["--score"], ["--against", "SAME"]])
def test_without_outcome_rules_there_is_no_score(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path)
    path.write_text(path.read_text().partition("[templates.market.outcomes")[0])
    more = [one.replace("SAME", str(path)) for one in more]
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(path), "--from", "1h", *more])
    assert ended.value.code == 2
    assert "no template has outcomes" in capsys.readouterr().err
