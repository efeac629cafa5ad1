"""LayerScale's TypeScript client in Node against a running worker: the examples of both
documents, and what the sessions held at each step."""

import json
import shutil
import subprocess

import pytest
from context_lines import lines_of

from client_packages import CLIENTS, node_modules

pytestmark = [pytest.mark.model, pytest.mark.broker]

NESTED, FLAT = "layerscale (TypeScript, nested)", "layerscale (TypeScript, flat)"
TSC = ("--strict", "--target", "es2022", "--module", "node16", "--skipLibCheck", "--types", "node")
RUN_TIMEOUT_S = 240


def marked(client, *names):
    def mark(test):
        for name in names:
            test = pytest.mark.client(client, name)(test)
        return test

    return mark


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with the programs, compiled."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(node_modules())
    (folder / "package.json").write_text('{"type": "module"}')
    sources = sorted(CLIENTS.glob("layerscale*.ts"))
    for source in sources:
        shutil.copy(source, folder)
    compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
    run("node", str(compiler), *TSC, *(source.name for source in sources), cwd=folder)
    return folder


def run(*command, cwd):
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def run_program(programs, worker, name):
    return json.loads(run("node", f"{name}.js", worker.url, cwd=programs))


@pytest.fixture(scope="module")
def nested(programs, worker):
    return run_program(programs, worker, "layerscale_nested")


@pytest.fixture(scope="module")
def flat(programs, worker):
    return run_program(programs, worker, "layerscale_flat")


AAPL = [
    {"o": 150.2, "h": 150.8, "l": 150.1, "c": 150.7, "v": 1_200_000, "sym": "AAPL"},
    {"o": 150.7, "h": 151.1, "l": 150.6, "c": 150.95, "v": 900_000, "sym": "AAPL"},
    {"o": 150.95, "h": 151.4, "l": 150.9, "c": 151.3, "v": 1_500_000, "sym": "AAPL"},
    {"o": 151.3, "h": 151.8, "l": 151.2, "c": 151.75, "v": 1_100_000, "sym": "AAPL"},
    {"o": 151.75, "h": 152.1, "l": 151.6, "c": 152.0, "v": 1_300_000, "sym": "AAPL"},
]


@marked(
    NESTED,
    "health",
    "sessions.create",
    "sessions.push",
    "sessions.query",
    "sessions.get",
    "sessions.stats",
    "sessions.streamStatus",
    "sessions.delete",
)
def test_the_readmes_complete_example(nested):
    assert nested["health"] == {"ok": True, "status": 200}
    seen = nested["complete"]
    state, created = seen["state"], seen["created"]
    assert state["context"] == 2048
    assert state["prefix_end"] == created["n_tokens"] == created["pos_max"] + 1
    assert state["context_text"].endswith("".join(lines_of("ohlcv", AAPL)))
    assert state["data_count"] == 5
    answer = seen["answer"]
    assert 0 < answer["n_tokens"] <= 8
    assert answer["text"]
    assert answer["total_tokens"] == state["n_tokens"]
    stats = seen["stats"]
    assert (stats["count"], stats["first_open"], stats["last_close"]) == (5, 150.2, 152.0)
    assert (stats["max_high"], stats["min_low"], stats["max_volume"]) == (152.1, 150.1, 1_500_000)
    assert stats["change"] == pytest.approx(1.8)
    status = seen["status"]
    assert status["streaming"]["queue_size"] == 0
    assert status["statistics"]["items_processed"] == status["data"]["data_count"] == 5
    assert nested["gone"]["status"] == 404
    assert "no session" in nested["gone"]["message"]


@marked(
    NESTED,
    "sessions.queryStream",
    "sessions.append",
    "sessions.flash",
    "sessions.listFlash",
    "sessions.unflash",
    "sessions.list",
    "sessions.markPrefix",
)
def test_the_readmes_sessions(nested):
    seen = nested["sessions"]
    *tokens, done = seen["chunks"]
    assert "".join(chunk["token"] for chunk in tokens) == done["text"] == seen["answer"]["text"]
    assert done["done"] is True
    assert (seen["registered"]["id"], seen["registered"]["max_tokens"]) == (3, 4)
    listed = seen["listed"]["flash_queries"]
    assert [one["id"] for one in listed] == [1, 2, 3]
    assert {one["data_version"] for one in listed} == {2}  # a candle's push, and the append
    assert seen["removed"]["remaining"] == 2
    assert seen["id"] in [one["session_id"] for one in seen["sessions"]["sessions"]]
    state = seen["state"]
    *_, before_last, last = state["context_text"].splitlines()
    assert before_last == "The market closes."
    assert f"{last}\n" == lines_of("ohlcv", AAPL[:3])[-1]
    assert seen["marked"]["prefix_end"] == state["n_tokens"] == state["prefix_end"]


@marked(NESTED, "sessions.events", "sessions.stream")
def test_the_readmes_events_and_socket(nested):
    seen = nested["sessions"]
    trend, volume = "Is the trend bullish?", "Is volume increasing?"
    assert seen["frames"] == [
        "push_ack 1",
        f"flash_ready {trend}",
        f"flash_ready {volume}",
        "data_updated 3",
    ]
    first = seen["events"][:4]
    assert [event["type"] for event in first] == [
        "connected",
        "flash_ready",
        "flash_ready",
        "data_updated",
    ]
    assert [event["data_version"] for event in first] == [0, 1, 1, 1]
    answers = {one["query"]: one["value"] for one in seen["events"] if one["type"] == "flash_ready"}
    assert answers.keys() >= {trend, volume}


@marked(NESTED, "sessions.query")
def test_the_readmes_tools(nested):
    first, follow_up = nested["tools"]["first"], nested["tools"]["followUp"]
    assert first["finish_reason"] in ("tool_calls", "length")
    [call] = first["tool_calls"]
    assert call["function"]["name"] == "read_file"
    assert isinstance(json.loads(call["function"]["arguments"])["path"], str)
    assert follow_up["n_tokens"] > 0
    # The second turn begins as the first one did: that was decoded already.
    usage = follow_up["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > first["total_tokens"]
    assert nested["aborted"] == "AbortError"


@marked(NESTED, "models", "chat", "chatStream", "complete", "message", "messageStream")
def test_the_readmes_chats(nested):
    seen = nested["chats"]
    assert seen["direct"]
    for name in ("chat", "chatStreamed", "message", "messageStreamed"):
        assert seen[name] == seen["direct"], name
    assert seen["completion"]["usage"]["completion_tokens"] == 3
    [model, *_] = seen["models"]["data"]
    assert seen["completion"]["model"] == model["id"]


@marked(
    FLAT,
    "createSession",
    "push",
    "generate",
    "generateStream",
    "events",
    "streamStatus",
    "stats",
    "deleteSession",
)
def test_the_page_of_the_client(flat):
    seen = flat["page"]
    assert seen["created"]["flash_queries"] == 2
    assert (seen["pushed"]["pushed"], seen["pushed"]["dropped"]) == (2, 0)
    assert seen["result"]["text"]
    assert seen["streamed"] == seen["described"]
    own = [event for event in seen["events"] if event.get("data_version") == 2]
    assert [event["type"] for event in own] == ["flash_ready", "flash_ready", "data_updated"]
    status = seen["status"]
    assert status["streaming"]["queue_size"] <= status["streaming"]["queue_capacity"]
    assert status["statistics"]["items_processed"] == 3
    assert (seen["stats"]["count"], seen["stats"]["last_close"]) == (3, 186.9)
    assert seen["stats"]["avg_close"] == pytest.approx((185.8 + 186.3 + 186.9) / 3)
    assert (flat["iot"]["last_sensor"], flat["iot"]["threshold_breaches"]) == ("temp-01", 0)
    assert flat["vitals"]["current"]["bp"] == "120/80"


@marked(FLAT, "stream")
def test_the_pages_full_example(flat):
    frames = flat["full"]["frames"]
    assert frames[0]["type"] == "connected"
    acknowledged = 0
    for frame in frames:
        acknowledged += frame.get("pushed", 0)
        if frame["type"] == "data_updated":
            assert frame["data_count"] <= acknowledged
    assert frames[-1]["data_count"] == acknowledged == 3
    queries = {frame["query"] for frame in frames if frame["type"] == "flash_ready"}
    assert queries == {"Is a breakout imminent?", "What's the key resistance level?"}
    assert (flat["full"]["stats"]["first_open"], flat["full"]["stats"]["last_close"]) == (
        3400,
        3415,
    )
