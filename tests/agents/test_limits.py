"""Invariant 6: what is too much for one session troubles neither its neighbours nor the
worker, now or when it starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from layerscale import APIStatusError, BadRequestError, LayerScale

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

pytestmark = [pytest.mark.broker, pytest.mark.model]

CONFIG = """
[kafka]
brokers = "{brokers}"

[bridge]
port = {port}

[engine]
context_tokens = 256
sessions_max = {sessions_max}
"""
Start = Callable[[int], AbstractContextManager[LayerScale]]


def readings(count: int, first: int = 100) -> list[dict[str, object]]:
    return [{"sid": "a", "val": float(first + n), "lo": 0.0, "hi": 999.0} for n in range(count)]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[Start, str]]:
    with embedded_broker() as brokers:

        @contextmanager
        def start(sessions_max: int) -> Iterator[LayerScale]:
            port, log = free_port(), tmp_path / "worker.log"
            config = tmp_path / "worker.toml"
            text = CONFIG.format(brokers=brokers, port=port, sessions_max=sessions_max)
            config.write_text(text)
            with worker_process(config, log) as process:
                wait_until_ready(port, process, log)
                yield LayerScale(f"http://127.0.0.1:{port}")
                assert process.poll() is None, log.read_text()[-3000:]

        yield start, brokers


async def dead_letter_reasons(brokers: str) -> list[str]:
    consumer = AIOKafkaConsumer(
        "flashfeed.dead_letters", bootstrap_servers=brokers, auto_offset_reset="earliest"
    )
    await consumer.start()
    reasons = []
    while fetched := await consumer.getmany(timeout_ms=2000):
        for records in fetched.values():
            reasons += [dict(one.headers)["flashfeed_reason"].decode() for one in records]
    await consumer.stop()
    return reasons


def test_a_full_session_is_refused_clearly_and_its_neighbour_goes_on(
    started: tuple[Start, str],
) -> None:
    start, brokers = started
    with start(4) as client:
        full = client.sessions.create(type="iot", flash=[{"query": "High?", "max_tokens": 2}])
        good = client.sessions.create(type="iot", flash=[{"query": "High?", "max_tokens": 2}])
        client.sessions.push(good.session_id, readings(3), wait=True)

        with pytest.raises(BadRequestError) as refused:  # a question that does not fit
            client.sessions.flash(good.session_id, "why " * 400)
        assert "context_length_exceeded" in str(refused.value.body)
        client.sessions.push(good.session_id, readings(1, 300), wait=True)
        assert "300" in client.sessions.get(good.session_id).context_text

        client.sessions.push(full.session_id, readings(10), wait=True)
        client.sessions.push(full.session_id, readings(200), wait=True)  # more than there is room
        before = client.sessions.get(full.session_id)
        assert before.data_count == 10
        with pytest.raises(BadRequestError, match="no more records"):
            client.sessions.push(full.session_id, readings(1))
        client.sessions.push(good.session_id, readings(1, 400), wait=True)
        kept = client.sessions.get(good.session_id).context_text
        assert "400" in kept
    assert asyncio.run(dead_letter_reasons(brokers)) == ["context_full"] * 200

    with start(4) as client:  # started again, all is as it was
        assert client.sessions.get(good.session_id).context_text == kept
        assert client.sessions.get(full.session_id).context_text == before.context_text
        with pytest.raises(BadRequestError, match="no more records"):
            client.sessions.push(full.session_id, readings(1))

    with start(1) as client:  # with room for one session only: the other waits for it
        took = 0
        for session in (full, good):
            try:
                client.sessions.query(session.session_id, prompt="?", max_tokens=1)
                took += 1
            except APIStatusError as error:
                assert error.status_code in (409, 503)
        assert took == 1
