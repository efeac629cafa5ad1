"""`flashfeed demo`: broker, worker and an existing feed on this machine, with live answers.

The worker is the real one, in a process of its own, with nothing but a configuration;
this process is only the feed's owner and a reader of the output topics.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import orjson
from aiokafka import AIOKafkaConsumer
from rich.console import Console
from rich.live import Live

from flashfeed.engine.packaged_model import fastest_form, find_packaged_model
from flashfeed.engine.replay import ideal_seconds
from flashfeed.models.config import Config

from .demo_board import Board, median_and_p99
from .demo_feed import SYMBOLS, create_source_topics, replay, source_records
from .demo_table import draw
from .embedded_broker import embedded_broker, free_port
from .settings import load
from .worker_process import scrape, wait_until_ready, worker_process

ANSWERS_TIMEOUT_S = 60.0
IDEAL_BUDGET_S = 12.0


def demo(*, records: int, rate: float, plain: bool) -> int:
    """Run the demo; 0 only if nothing was lost and everything answered."""
    console = Console()
    console.print("[bold]flashfeed demo[/bold]: bringing the packaged model into its fastest form")
    model = fastest_form(find_packaged_model(), progress=lambda line: console.print(f"  {line}"))
    with tempfile.TemporaryDirectory(prefix="flashfeed-demo-") as folder:
        home = Path(folder)
        with embedded_broker(home / "broker.log") as brokers:
            console.print(f"  broker on {brokers}, in memory")
            asyncio.run(create_source_topics(brokers))
            config_path, port = write_config(home, brokers)
            trace = home / "passes.jsonl"
            began = time.monotonic()
            with worker_process(config_path, home / "worker.log", trace) as worker:
                wait_until_ready(port, worker, home / "worker.log")
                took = time.monotonic() - began
                console.print(f"  worker ready after {took:.1f} s, bridge on 127.0.0.1:{port}")
                show = None if plain else console
                started = time.monotonic()
                board = asyncio.run(_run(load(config_path), brokers, records, rate, show))
                wall_s = time.monotonic() - started
                decode_s = scrape(port, "flashfeed_engine_decode_seconds_total")
        ideal = ideal_seconds(trace, model, budget_s=IDEAL_BUDGET_S)
    return report(console, board, records, wall_s, decode_s, ideal * decode_s)


def write_config(home: Path, brokers: str) -> tuple[Path, int]:
    """The demo's configuration with the ports of this run; returns its path and the bridge's."""
    port = free_port()
    text = files("flashfeed.cli").joinpath("demo.toml").read_text()
    path = home / "demo.toml"
    path.write_text(text.replace("@brokers@", brokers).replace("@port@", str(port)))
    return path, port


async def _run(
    config: Config, brokers: str, each: int, rate: float, console: Console | None
) -> Board:
    records = list(source_records(each))
    names = {
        kind: tuple(query.label for query in template.spec().flash)
        for kind, template in config.templates.items()
    }
    sessions = {record.session for record in records}
    kinds = {name: "sensor" if name == "cgm-01" else "market" for name in sessions}
    board = Board(
        {name: names[kind] for name, kind in kinds.items()},
        {name: config.templates[kind].window for name, kind in kinds.items()},
    )
    assert len(board.queries) == len(SYMBOLS) + 1
    following = asyncio.create_task(follow(config, brokers, board))
    began = time.monotonic()
    feeding = asyncio.create_task(
        replay(brokers, records, rate, board.note_sent, len(records) // 2)
    )
    with (
        Live(console=console, refresh_per_second=4, transient=False)
        if console
        else _Silent() as live
    ):
        while not (feeding.done() and board.complete()):
            elapsed = time.monotonic() - began
            stage = "replaying" if not feeding.done() else "waiting for the last answers"
            live.update(draw(board, elapsed, stage))
            if (
                feeding.done()
                and time.monotonic() - began > len(records) / max(rate, 1) + ANSWERS_TIMEOUT_S
            ):
                break
            for task in (feeding, following):
                if task.done() and task.exception():
                    raise task.exception()  # type: ignore[misc]
            await asyncio.sleep(0.25)
        live.update(draw(board, time.monotonic() - began, "done"))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return board


class _Silent:
    """Stands for the live table where only lines are wanted."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: object) -> None:
        """Nothing to draw."""


async def follow(config: Config, brokers: str, board: Board) -> None:
    """Read the output topics and the dead letters onto the board, until cancelled."""
    topics = config.topics
    consumer = AIOKafkaConsumer(
        topics.flash_ready,
        topics.data_updated,
        topics.dead_letters,
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        async for record in consumer:
            if record.topic == topics.dead_letters:
                board.dead_letters += 1
                continue
            headers = dict(record.headers)
            board.note_event(headers["ce_id"].decode(), orjson.loads(record.value), time.time())
    finally:
        await consumer.stop()


def _latency(latencies_s: list[float]) -> str:
    median, p99 = median_and_p99(latencies_s)
    return f"median {median:.2f} s, p99 {p99:.2f} s"


def report(
    console: Console, board: Board, each: int, wall_s: float, decode_s: float, ideal_s: float
) -> int:
    """Print the summary and the verdict; the exit code."""
    lines = {
        "records in": f"{len(board.sent)} in {len(board.sessions)} sessions",
        "updates": f"{board.updates}",
        "answers out": f"{board.flash_ready}",
        "dead letters": f"{board.dead_letters}",
        "tokens a record": f"{board.tokens_a_record():.1f}",
        "record sent to flash_ready": _latency(board.latencies_s),
        "  of the live records": _latency(board.live_latencies_s),
        "inside llama_decode": f"{decode_s:.1f} of {wall_s:.1f} s ({decode_s / wall_s:.0%})",
        "a bare llama_decode loop": f"{ideal_s:.1f} s ({ideal_s / wall_s:.0%})",
    }
    console.print()
    for name, text in lines.items():
        console.print(f"  {name:<28}{text}", highlight=False)
    problems = board.lost() + [
        f"{what}: no answer for the last record" for what in board.unanswered()
    ]
    if len(board.sent) != each * len(board.sessions):
        problems.append(f"{each * len(board.sessions)} records to send, {len(board.sent)} sent")
    if board.dead_letters:
        problems.append(f"{board.dead_letters} dead letters, none expected")
    for problem in problems[:20]:
        console.print(f"  [red]{problem}[/red]")
    verdict = "every session answered every question for its last record; no record was lost"
    console.print(f"\n  {'FAILED' if problems else verdict}")
    return 1 if problems else 0
