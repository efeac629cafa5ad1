"""What the bridge costs, side by side with what it stands before.

    push_over_produce   records/s pushed over HTTP, 500 a request, over the same records
                        produced with aiokafka, one message a record        >= 0.5
    overhead_ms_ratio   time to the first token over HTTP, over the engine's own
                        for the same question to the same session           <= 1.1
    events_fanout       p99 from an answer to its flash_ready at a subscriber, with 1,000
                        subscribers of the session, over that with one      <= 50
    idle_subscribers    update time with 1,000 subscribers of another session that is
                        quiet, over without                                 <= 1.1
    idle_mb             what they add to the worker's resident memory       < 100

Clients, worker and broker are processes of their own. Where only transport is asked about
(push, fan-out) the worker's engine answers at once (bridge_stub.py); else it is the real
one. `--quick` for a first look.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson
from aiokafka import AIOKafkaProducer
from rig import QUIET_S

from flashfeed.agents.app import Worker
from flashfeed.bridge.app import create_app
from flashfeed.bridge.server import BridgeServer
from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.sample_data import candles
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import wait_until_ready, worker_process
from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.packaged_model import fastest_form, find_packaged_model
from flashfeed.models.generation import GenerateOptions

HERE = Path(__file__).parent
QUICK = "--quick" in sys.argv
BATCH = 500
SUBSCRIBERS = 1000
DELIVERED_S = 30.0
BOUNDS = {
    "push_over_produce": (">=", 0.5),
    "overhead_ms_ratio": ("<=", 1.1),
    "events_fanout": ("<=", 50),
    "idle_subscribers": ("<=", 1.1),
    "idle_mb": ("<", 100),
}
CONFIG = """
[kafka]
brokers = "{brokers}"
group = "{group}"

[bridge]
port = {port}
queue_records_max = 1000000

[engine]
context_tokens = 2048
sessions_max = 8
"""


def configured(home: Path, brokers: str, group: str) -> tuple[Path, int]:
    port = free_port()
    path = home / f"{group}.toml"
    path.write_text(CONFIG.format(brokers=brokers, group=group, port=port))
    return path, port


@contextlib.contextmanager
def stub_worker(config: Path, port: int, log: Path) -> Iterator[None]:
    with log.open("ab") as sink:
        command = [sys.executable, str(HERE / "bridge_stub.py"), str(config)]
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        wait_until_ready(port, process, log)
        yield
    finally:
        process.terminate()
        process.wait(15)


class Readers:
    """Subscribers of one session, in a process of their own."""

    def __init__(self, port: int, session: str, number: int) -> None:
        arguments = [str(HERE / "bridge_readers.py"), str(port), session, str(number)]
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def latencies_ms(self) -> list[float]:
        """Those since the call before."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def new_session(http: httpx.Client, **more: Any) -> str:
    body = {"type": "ohlcv", "window_size": 16, **more}
    answer = http.post("/v1/sessions/init", json=body).raise_for_status()
    return str(answer.json()["session_id"])


def some_candles(number: int, first: int = 0) -> list[dict[str, Any]]:
    """Candles with real prices, a minute apart from the number `first` on: each is new."""
    rows = list(candles("AAPL"))
    return [
        {
            "o": row["open"], "h": row["high"], "l": row["low"], "c": row["close"],
            "v": row["volume"], "timestamp": 1_600_000_000 + 60 * place,
        }
        for place, row in ((n, rows[n % len(rows)]) for n in range(first, first + number))
    ]  # fmt: skip


# -- push ------------------------------------------------------------------------------


async def produced_s(brokers: str, records: list[dict[str, Any]]) -> float:
    """Seconds to produce the records, acknowledged by all."""
    settings = {"acks": "all", "linger_ms": 5, "max_batch_size": 500_000}
    async with AIOKafkaProducer(bootstrap_servers=brokers, **settings) as producer:
        await producer.send_and_wait("bench", b"", key=b"s")
        began = time.perf_counter()
        sent = [
            await producer.send("bench", orjson.dumps(record), key=b"s", partition=0)
            for record in records
        ]
        await asyncio.gather(*sent)
        return time.perf_counter() - began


async def pushed_s(url: str, session: str, records: list[dict[str, Any]]) -> float:
    """Seconds to push them, one request after another, each acknowledged."""
    path = f"/v1/sessions/{session}/stream/push"
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        await http.get("/v1/health")
        began = time.perf_counter()
        for place in range(0, len(records), BATCH):
            body = orjson.dumps({"data": records[place : place + BATCH]})
            (await http.post(path, content=body, headers=headers)).raise_for_status()
        return time.perf_counter() - began


def applied(http: httpx.Client, session: str) -> None:
    """Wait until the session has applied what was pushed."""
    path = f"/v1/sessions/{session}/stream/status"
    while http.get(path).json()["streaming"]["queue_size"]:
        time.sleep(0.05)


def push_over_produce(home: Path, brokers: str) -> dict[str, float]:
    config, port = configured(home, brokers, "push")
    url = f"http://127.0.0.1:{port}"
    count = 10_000 if QUICK else 40_000
    rates: dict[str, list[float]] = {"push": [], "produce": []}
    with (
        stub_worker(config, port, home / "push.log"),
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        session = new_session(http)
        for number in range(4):
            records = some_candles(count, number * count)
            pushed = asyncio.run(pushed_s(url, session, records))
            applied(http, session)
            produced = asyncio.run(produced_s(brokers, records))
            if number:  # the first round warms both
                rates["push"].append(len(records) / pushed)
                rates["produce"].append(len(records) / produced)
    ratios = [a / b for a, b in zip(rates["push"], rates["produce"], strict=True)]
    return {
        "push_over_produce": median(ratios),
        "pushed_per_s": median(rates["push"]),
        "produced_per_s": median(rates["produce"]),
    }


# -- fan-out ---------------------------------------------------------------------------


def fan_out(http: httpx.Client, port: int, subscribers: int, updates: int) -> float:
    """The p99 of all deliveries of flash_ready, ms."""
    session = new_session(http, flash=[{"query": "When?", "max_tokens": 4}])
    path = f"/v1/sessions/{session}/stream/push"
    latencies: list[float] = []
    with Readers(port, session, subscribers) as readers:
        for place, record in enumerate(some_candles(updates + 3)):
            http.post(path, json={"data": [record]}).raise_for_status()
            got: list[float] = []
            ends = time.monotonic() + DELIVERED_S
            while len(got) < subscribers:
                if time.monotonic() > ends:
                    raise SystemExit(f"{len(got)} of {subscribers} subscribers got an answer")
                time.sleep(0.02 + subscribers * 2e-4)
                got += readers.latencies_ms()
            if place >= 3:
                latencies += got
    http.delete(f"/v1/sessions/{session}")
    return sorted(latencies)[int(0.99 * (len(latencies) - 1))]


def events_fanout(home: Path, brokers: str) -> dict[str, float]:
    config, port = configured(home, brokers, "fanout")
    one: list[float] = []
    many: list[float] = []
    with (
        stub_worker(config, port, home / "fanout.log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        for _ in range(1 if QUICK else 3):
            one.append(fan_out(http, port, 1, 100))
            many.append(fan_out(http, port, SUBSCRIBERS, 20))
    return {
        "events_fanout": median(a / b for a, b in zip(many, one, strict=True)),
        "delivery_one_p99_ms": median(one),
        "delivery_1000_p99_ms": median(many),
    }


# -- idle subscribers ------------------------------------------------------------------


def update_ms(http: httpx.Client, session: str, records: list[dict[str, Any]]) -> list[float]:
    """From a push to its answer, as a client sees them."""
    spent = []
    path = f"/v1/sessions/{session}"
    for record in records:
        before = http.get(f"{path}/flash").json()["current_data_version"]
        began = time.perf_counter()
        http.post(f"{path}/stream/push", json={"data": [record]}).raise_for_status()
        while http.get(f"{path}/flash").json()["current_data_version"] == before:
            time.sleep(0.001)
        spent.append((time.perf_counter() - began) * 1000)
        time.sleep(QUIET_S)
    return spent


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def idle_subscribers(home: Path, brokers: str) -> dict[str, float]:
    config, port = configured(home, brokers, "idle")
    log = home / "idle.log"
    rounds, each = (2, 5) if QUICK else (5, 10)
    ratios: list[float] = []
    added: list[float] = []
    alone: list[float] = []
    with (
        worker_process(config, log) as worker,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        wait_until_ready(port, worker, log)
        quiet = new_session(http)
        busy = new_session(http, flash=[{"query": "Up?", "choices": ["yes", "no"]}])
        records = iter(some_candles(20 + 2 * rounds * each))
        update_ms(http, busy, [next(records) for _ in range(16)])  # the window is full
        with Readers(port, quiet, 20):
            pass
        for _ in range(rounds):
            without = update_ms(http, busy, [next(records) for _ in range(each)])
            before = resident_mb(worker.pid)
            with Readers(port, quiet, SUBSCRIBERS):
                added.append(resident_mb(worker.pid) - before)
                beside = update_ms(http, busy, [next(records) for _ in range(each)])
            ratios.append(median(beside) / median(without))
            alone.append(median(without))
    return {
        "idle_subscribers": median(ratios),
        "idle_mb": max(added),  # those who come later use what the first ones left
        "update_ms": median(alone),
    }


# -- overhead --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(home: Path, brokers: str) -> AsyncIterator[tuple[Engine, str]]:
    """The worker in this process, so that its engine can be asked directly, too."""
    path, port = configured(home, brokers, "overhead")
    config = load(path)
    model = fastest_form(find_packaged_model(), progress=lambda _: None)
    engine = Engine(EngineSettings(model_path=model, context_tokens=2048, sessions_max=8))
    engine.start()
    worker = Worker(config, engine, lambda _: [])
    service = await worker.start()
    server = BridgeServer(create_app(service), config.bridge.host, port)
    await server.start()
    worker.claims.announce(f"http://127.0.0.1:{port}")
    while not service.ready:
        await asyncio.sleep(0.05)
    try:
        yield engine, f"http://127.0.0.1:{port}"
    finally:
        await server.stop()
        await worker.stop()
        await engine.stop()


FIRST_TOKEN = """
import sys, time, httpx
url, session = sys.argv[1:]
body = {"max_tokens": 2, "stream": True}
with httpx.Client(base_url=url, timeout=60) as http:
    http.get("/v1/health")
    print("ready", flush=True)
    for line in sys.stdin:
        body["prompt"] = line.strip()
        began = time.perf_counter()
        with http.stream("POST", f"/v1/sessions/{session}/generate", json=body) as answer:
            for text in answer.iter_lines():
                if text.startswith("data:"):
                    print(time.perf_counter() - began, flush=True)
                    break
            answer.read() if not answer.is_stream_consumed else None
"""


async def overhead(home: Path, brokers: str) -> dict[str, float]:
    rounds = 8 if QUICK else 30
    ratios: list[float] = []
    own: list[float] = []
    bridged: list[float] = []
    async with served(home, brokers) as (engine, url):
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            made = await http.post("/v1/sessions/init", json={"type": "ohlcv"})
            session = made.raise_for_status().json()["session_id"]
            push = f"/v1/sessions/{session}/stream/push"
            (await http.post(push, json={"data": some_candles(30)})).raise_for_status()
            status = f"/v1/sessions/{session}/stream/status"
            while (await http.get(status)).json()["streaming"]["queue_size"]:
                await asyncio.sleep(0.05)
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FIRST_TOKEN, url, session,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert client.stdin is not None and client.stdout is not None
        await client.stdout.readline()
        for place in range(rounds + 2):
            sides: dict[str, float] = {}
            for side in ("engine", "bridge") if place % 2 else ("bridge", "engine"):
                await asyncio.sleep(0.2)
                # As long for both sides, and nothing that the other one has asked.
                number = 100 + 2 * place + (side == "bridge")
                prompt = f"In one word, is the trend up or down after close number {number}?"
                if side == "bridge":
                    client.stdin.write(f"{prompt}\n".encode())
                    sides[side] = float(await client.stdout.readline())
                else:
                    sides[side] = await first_token_s(engine, session, prompt)
            if place >= 2:
                ratios.append(sides["bridge"] / sides["engine"])
                own.append(sides["engine"] * 1000)
                bridged.append(sides["bridge"] * 1000)
        client.kill()
        await client.wait()
    return {
        "overhead_ms_ratio": median(ratios),
        "first_token_ms": median(own),
        "bridged_ms": median(bridged),
    }


async def first_token_s(engine: Engine, session: str, prompt: str) -> float:
    began = time.perf_counter()
    pieces = engine.generate(session, prompt, GenerateOptions(max_tokens=2))
    spent = 0.0
    async for _ in pieces:
        spent = spent or time.perf_counter() - began
    return spent


def main() -> None:
    figures: dict[str, Any] = {"bench": "bridge"}
    chosen = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    measures = {
        "push": push_over_produce,
        "fanout": events_fanout,
        "idle": idle_subscribers,
        "overhead": lambda home, brokers: asyncio.run(overhead(home, brokers)),
    }
    with tempfile.TemporaryDirectory(prefix="flashfeed-bridge-") as folder:
        for name in chosen or measures:
            with embedded_broker() as brokers:
                figures |= measures[name](Path(folder), brokers)
    passes = True
    figures = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    for name, value in figures.items():
        sign, bound = BOUNDS.get(name, ("", 0.0))
        good = not sign or (value >= bound if sign == ">=" else value <= bound)
        passes = passes and good
        print(f"{name:<22}{value:>14}   {sign} {bound if sign else ''}{'' if good else '  FAILS'}")
    figures["pass"] = passes
    print(json.dumps(figures))
    sys.exit(not passes)


if __name__ == "__main__":
    main()
