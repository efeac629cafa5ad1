"""The checks that a worker's health is made of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flashfeed.agents.broker_probe import OLD_S, BrokerProbe, broker_check
from flashfeed.agents.health import (
    WorkerHealth,
    assigned_check,
    engine_check,
    progress_check,
    recovered_check,
    worker_check,
)
from flashfeed.cli.embedded_broker import free_port, start_broker, stop_broker
from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import EngineError
from flashfeed.models.health import Check


@pytest.mark.parametrize(
    ("check", "ok", "says"),
    [
        (worker_check(None), True, "nothing has failed"),
        (worker_check(EngineError("the disk is full")), False, "it stops: the disk is full"),
        (engine_check(None), True, "its thread runs"),
        (engine_check(MemoryError("no room")), False, "its thread ended: no room"),
        (broker_check(None, 5.0, ""), False, "no broker has answered yet"),
        (broker_check(None, 5.0, "refused"), False, "no broker has answered yet: refused"),
        (broker_check(1.0, 1.0 + OLD_S, "refused"), True, f"a broker answered {OLD_S:.0f} s ago"),
        (broker_check(1.0, 12.5, "refused"), False, "no broker answered for 12 s: refused"),
        (assigned_check([2, 0], False), True, "owns partitions 0, 2"),
        (assigned_check([], True), True, "owns none; the group's other workers serve them all"),
        (assigned_check([], False), False, "no partition of the records topic"),
        (recovered_check([0, 1], [1, 0]), True, "serves 2 partitions"),
        (recovered_check([0, 1, 3], [1]), False, "of partitions 0, 3 are not there yet"),
        (recovered_check([], []), True, "serves 0 partitions"),
        (progress_check([]), True, "every partition"),
        (progress_check(["t[0]", "t[2]"]), False, "nothing comes of t[0], t[2]"),
    ],
)
def test_a_check_says_whether_and_why(check: Check, ok: bool, says: str) -> None:
    assert check.ok is ok
    assert says in check.reason


async def until(probe: BrokerProbe, says: str) -> Check:
    async with asyncio.timeout(30):
        while says not in probe.check().reason:
            await asyncio.sleep(0.05)
    return probe.check()


@pytest.mark.broker
async def test_the_probe_finds_a_broker_that_comes_late_and_again_after_it_went() -> None:
    port = free_port()
    probe = BrokerProbe(KafkaConfig(brokers=f"127.0.0.1:{port}"))
    await probe.start()
    try:
        assert not (await until(probe, "yet: ")).ok  # with what the connection said
        for _ in range(2):
            broker = start_broker(port)
            assert (await until(probe, "answered 0 s ago")).ok
            stop_broker(broker)
            assert not (await until(probe, "no broker answered for")).ok
    finally:
        await probe.stop()


@pytest.mark.model
async def test_the_end_of_the_engine_s_thread_is_the_end_of_liveness() -> None:
    engine = Engine(
        EngineSettings(
            model_path=fastest_form(find_packaged_model()), threads=1, context_tokens=512
        )
    )
    unused: Any = None
    health = WorkerHealth(
        engine, unused, unused, unused, lambda: None, lambda: False, lambda: []
    )  # fmt: skip
    engine.start()
    try:
        assert all(check.ok for check in health.alive())

        def ends() -> None:
            raise SystemError("llama.cpp is gone")

        scheduler: Any = engine._scheduler
        scheduler._step = ends
        async with asyncio.timeout(30):
            while all(check.ok for check in health.alive()):
                await asyncio.sleep(0.05)
        assert [check.reason for check in health.alive() if not check.ok] == [
            "its thread ended: llama.cpp is gone"
        ]
    finally:
        await engine.stop()
