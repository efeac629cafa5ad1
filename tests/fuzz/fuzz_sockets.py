"""WebSocket frames: good ones, broken ones and noise, on LayerScale's socket and Realm's.

After each frame the connection is asked something that it must answer; where it has
closed instead, the code must say that the client was at fault.
"""

from __future__ import annotations

import copy
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fuzz_http import JUNK, break_something
from fuzz_target import HANG_S, RECORDS, TOKENS_MAX, Target, bounded

THEIR_FAULT = frozenset({1000, 1002, 1003, 1005, 1007, 1008, 1009, 1013})
ASKED = {"prompt": "Up?", "max_tokens": TOKENS_MAX, "temperature": 0}


class Dialect(NamedTuple):
    """A socket: its path, good frames, and a question with the sign of its answer."""

    name: str
    path: Callable[[Target], str]
    good: list[dict[str, Any]]
    probe: Callable[[int], dict[str, Any]]
    answers: Callable[[dict[str, Any], int], bool]


LAYERSCALE = Dialect(
    "layerscale",
    lambda target: f"/v1/sessions/{target.session()}/ws",
    [
        {"type": "push", "data": RECORDS[:1]},
        {"type": "push", "data": RECORDS[:3], "idempotency_key": "k"},
        {"type": "ping"},
        {"type": "close"},
    ],
    lambda _: {"type": "ping"},
    lambda frame, _: frame.get("type") == "pong",
)
REALM = Dialect(
    "realm",
    lambda _: "/",
    [
        {"id": "CASE", "function": "generate", "params": ASKED, "tenant_id": "fuzz"},
        {"id": "CASE", "function": "generate", "params": {**ASKED, "stream": True}},
        {"id": "CASE", "function": "health", "params": {}},
        {"id": "CASE", "function": "metadata", "params": {}},
        {"id": "CASE", "function": "pipeline", "params": {"pipeline": "p", "input": "x"}},
        {"type": "auth", "api_key": "nobody"},
    ],
    lambda number: {"id": f"probe-{number}", "function": "health", "params": {}},
    lambda frame, number: frame.get("id") == f"probe-{number}",
)


def socket_cases(target: Target, number: int, first_seed: int) -> None:
    """So many frames, half on each dialect's socket."""
    threads = [
        threading.Thread(target=_frames, args=(target, dialect, -(-number // 2), first_seed))
        for dialect in (LAYERSCALE, REALM)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _frames(target: Target, dialect: Dialect, number: int, first_seed: int) -> None:
    chance = random.Random(f"{dialect.name} {first_seed}")
    connection: ClientConnection | None = None
    for place in range(number):
        frame = a_frame(dialect, chance, place)
        began = time.monotonic()
        try:
            if connection is None or place % 100 == 0:
                if connection is not None:
                    connection.close()
                connection = connect(
                    target.url.replace("http", "ws", 1) + dialect.path(target),
                    open_timeout=HANG_S, max_size=None, close_timeout=1,
                )  # fmt: skip
            connection.send(frame)
            connection.send(json.dumps(dialect.probe(place)))
            _await_answer(connection, dialect, place)
            target.count(f"{dialect.name} answered")
        except ConnectionClosed as closed:
            connection = None
            code = closed.rcvd.code if closed.rcvd else 1006
            target.count(f"{dialect.name} closed {code}")
            if code not in THEIR_FAULT:
                target.failed(f"{dialect.name} closed with {code} on {frame[:600]!r}")
        except InvalidStatus as refused:
            target.count(f"{dialect.name} refused")
            if refused.response.status_code >= 500:
                target.failed(f"{dialect.name}: {refused.response.status_code} at the upgrade")
        except (TimeoutError, OSError) as error:
            connection = None
            target.count(f"{dialect.name} broken")
            waited = time.monotonic() - began
            target.failed(f"{dialect.name}: {error!r} after {waited:.0f} s on {frame[:600]!r}")
    if connection is not None:
        connection.close()


def _await_answer(connection: ClientConnection, dialect: Dialect, place: int) -> None:
    ends = time.monotonic() + HANG_S
    while True:
        frame = json.loads(connection.recv(max(0.0, ends - time.monotonic())))
        if frame.get("error", {}) and "INTERNAL_ERROR" in json.dumps(frame):
            raise OSError(f"an internal error: {frame}")
        if dialect.answers(frame, place):
            return


def a_frame(dialect: Dialect, chance: random.Random, place: int) -> str | bytes:
    """A good frame, a broken one, or noise."""
    kind = chance.random()
    if kind < 0.08:
        return chance.randbytes(chance.randrange(200))
    if kind < 0.14:
        return json.dumps(chance.choice(JUNK))
    frame = copy.deepcopy(chance.choice(dialect.good))
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        break_something(frame, chance)
    if frame.get("id") == "CASE":
        frame["id"] = f"case-{place}"
    text = json.dumps(_brief(frame))
    if kind < 0.2:
        text = text[: chance.randrange(len(text))]
    return text if kind < 0.9 else text.encode()


def _brief(frame: dict[str, Any]) -> Any:
    params = frame.get("params")
    if isinstance(params, dict):
        params.setdefault("max_tokens", TOKENS_MAX)
    return bounded(frame)
