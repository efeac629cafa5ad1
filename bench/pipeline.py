"""From a record on somebody's topic to its flash_ready, as fast as it goes.

The demo's feed (real candles and glucose readings, five sessions, three questions each)
is written at once; a real worker process reads it, keeps the sessions and publishes.
Wall time runs from the first send to the last record's flash_ready.

    ideal_share = seconds that a bare loop over llama_decode needs for the same passes,
                  replayed right after, over wall time          >= 0.75
    decode_share = time inside llama_decode during the run, over wall time (reported)

A worker that is still loading its model is not part of it: the feed starts when the
worker is ready and has answered one warm-up record a session.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from flashfeed.cli.demo import follow, write_config
from flashfeed.cli.demo_board import Board, median_and_p99
from flashfeed.cli.demo_feed import create_source_topics, replay, source_records
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import scrape, wait_until_ready, worker_process
from flashfeed.engine.packaged_model import fastest_form, find_packaged_model
from flashfeed.engine.replay import ideal_seconds

EACH = 101  # records a session: one to warm up, 100 that count
IDEAL_SHARE_MIN = 0.75
DECODE_SECONDS = "flashfeed_engine_decode_seconds_total"


async def feed(brokers: str, config_path: Path, port: int) -> dict[str, float]:
    """Warm up, write everything at once, and wait for the last answer."""
    config = load(config_path)
    records = list(source_records(EACH))
    sessions = sorted({record.session for record in records})
    board = Board({name: () for name in sessions})
    following = asyncio.create_task(follow(config, brokers, board))

    async def answered() -> None:
        while board.waiting:
            await asyncio.sleep(0.005)

    await replay(brokers, records[: len(sessions)], 0, board.note_sent)
    await answered()
    decoded_before = scrape(port, DECODE_SECONDS)
    updates_before = board.updates
    board.latencies_s.clear()
    began = time.perf_counter()
    await replay(brokers, records[len(sessions) :], 0, board.note_sent)
    sent_s = time.perf_counter() - began
    await answered()
    wall_s = time.perf_counter() - began
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    if board.lost():
        raise SystemExit("\n".join(board.lost()))
    p50_s, p99_s = median_and_p99(board.latencies_s)
    return {
        "records": len(records) - len(sessions),
        "updates": board.updates - updates_before,
        "sent_s": sent_s,
        "wall_s": wall_s,
        "decode_s": scrape(port, DECODE_SECONDS) - decoded_before,
        "decoded_before_s": decoded_before,
        "p50_s": round(p50_s, 3),
        "p99_s": round(p99_s, 3),
        "tokens_a_record": round(board.tokens_a_record(), 2),
    }


def main() -> None:
    model = fastest_form(find_packaged_model(), progress=print)
    with tempfile.TemporaryDirectory(prefix="flashfeed-pipeline-") as folder:
        home = Path(folder)
        trace, log = home / "passes.jsonl", home / "worker.log"
        with embedded_broker() as brokers:
            asyncio.run(create_source_topics(brokers))
            config_path, port = write_config(home, brokers)
            with worker_process(config_path, log, trace) as worker:
                wait_until_ready(port, worker, log)
                run = asyncio.run(feed(brokers, config_path, port))
        ideal_over_decode = ideal_seconds(trace, model)
    ideal_s = run["decode_s"] * ideal_over_decode
    figures = {
        "bench": "pipeline",
        "records": run["records"],
        "updates": run["updates"],
        "records_per_s": round(run["records"] / run["wall_s"], 1),
        "latency_p50_s": run["p50_s"],
        "latency_p99_s": run["p99_s"],
        "tokens_a_record": run["tokens_a_record"],
        "decode_share": round(run["decode_s"] / run["wall_s"], 3),
        "ideal_share": round(ideal_s / run["wall_s"], 3),
        "wall_s": round(run["wall_s"], 2),
    }
    figures["pass"] = figures["ideal_share"] >= IDEAL_SHARE_MIN and figures["records"] >= 500
    for name, value in figures.items():
        print(f"{name:<18}{value}")
    print(json.dumps(figures))
    sys.exit(not figures["pass"])


if __name__ == "__main__":
    main()
