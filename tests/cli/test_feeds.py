"""`flashfeed feeds`: a topic or a file looked at, without a group and without a trace."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.main import main
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.codecs.presets import preset, preset_names

CONFIG = """
[kafka]
brokers = "{brokers}"
group = "looks-only"

[feeds.candles]
topics = ["{topic}"]
preset = "cryptofeed"
template = "market"

[templates.market]
type = "ohlcv"
"""


def run(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["feeds", *map(str, args)])
    return int(ended.value.code or 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "flashfeed.toml"
    path.write_text(CONFIG.format(brokers="127.0.0.1:1", topic="candles-*"))
    return path


def sample(name: str) -> str:
    return preset(name).samples[0].value.replace("\n", "")


def test_every_preset_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    out = capsys.readouterr().out
    assert all(f"{name}\n  {preset(name).about}" in out for name in preset_names())


@pytest.mark.model
def test_a_file_through_a_feed(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = tmp_path / "messages.jsonl"
    good = sample("cryptofeed")
    bad = good.replace("16502.5", '"n/a"')
    messages.write_text(f"{good}\n{bad}\nnot json\n")
    assert run("try", "-c", config, "--sample", messages) == 1
    out = capsys.readouterr().out
    assert "ohlcv of session BINANCE:BTC-USDT:1m: o 16500.1" in out
    assert "line    BTC-USDT 16502.50    15 tokens\n" in out
    assert 'map: expected number, got "n/a" at $.close' in out
    assert f"{messages}:3\n  bytes   not json\n  fault   decode:" in out
    messages.write_text(good)
    assert run("try", "-c", config, "--sample", messages) == 0


def test_a_preset_that_fits_better_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = tmp_path / "klines.json"
    messages.write_text(sample("binance_klines"))
    assert run("try", "-c", config, "--sample", messages) == 1
    assert 'preset = "binance_klines" maps 1 of those 1' in capsys.readouterr().out


def test_a_guess_is_printed_as_lines_of_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = tmp_path / "unknown.jsonl"
    values = {"ticker": "A", "ts": 1733000000, "open": 1, "high": 2, "low": 1, "close": 2, "vol": 5}
    messages.write_text(json.dumps(values))
    assert run("guess", "--sample", messages) == 0
    out = capsys.readouterr().out
    table = tomllib.loads(out.partition("maps 1 of them:\n\n")[2])
    feed = table["feeds"]["TOPIC"]
    assert feed["model"] == "ohlcv" and feed["time"] == "ts:s"
    assert feed["topics"] == ["TOPIC"] and feed["template"] == "TEMPLATE"
    messages.write_text('{"note":"hello"}')
    assert run("guess", "--sample", messages) == 1


def test_a_broker_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["feeds", "guess", "--brokers", f"127.0.0.1:{free_port()}"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("flashfeed feeds: no broker answers at 127.0.0.1:")
    assert "Traceback" not in said


def test_who_reads_only_the_first_lines_sees_no_traceback() -> None:
    script = f"{sys.executable} -m flashfeed.cli.main feeds list | head -1"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (f"{preset_names()[0]}\n", "")


@pytest.mark.broker
async def test_the_newest_of_a_topic_is_looked_at_and_nothing_is_committed(
    broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = "candles-looked-at"
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    rows = [row for _, row in zip(range(30), candles("AAPL"), strict=False)]
    for row in rows:
        await producer.send_and_wait(topic, cryptofeed_json("AAPL", row), key=b"candles")
    await producer.stop()
    path = tmp_path / "flashfeed.toml"
    path.write_text(CONFIG.format(brokers=broker, topic=topic))
    assert await asyncio.to_thread(run, "try", "-c", path, "-n", "3") == 0
    out = capsys.readouterr().out
    assert "feed candles: codec json, 3 messages" in out
    assert "offset 29" in out and "offset 26\n" not in out
    assert await asyncio.to_thread(run, "guess", "-c", path, "--topic", topic) == 0
    assert 'preset = "cryptofeed"' in capsys.readouterr().out
    assert await asyncio.to_thread(run, "try", "-c", path, "--topic", "no-such-topic") == 2
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    groups = [group[0] for group in await admin.list_consumer_groups()]
    await admin.close()
    assert "looks-only" not in groups
