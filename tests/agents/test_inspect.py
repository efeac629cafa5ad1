"""A session's state is of one version, while records come in and are applied too."""

from __future__ import annotations

import re
import threading

import pytest
from conftest import RunningWorker
from layerscale import LayerScale

pytestmark = [pytest.mark.broker, pytest.mark.model]
RECORDS = 40
LINE = re.compile(r"(a )?1\d\d( \+1)?")


def test_the_context_and_what_is_said_of_it_agree(worker: RunningWorker) -> None:
    client = LayerScale(worker.url)
    flash = [{"query": "High?", "max_tokens": 2}]
    made = client.sessions.create(type="iot", window_size=200, flash=flash)
    reader = LayerScale(worker.url)
    seen: list[tuple[int, int]] = []

    def push() -> None:
        for number in range(RECORDS):
            record = {"sid": "a", "val": float(100 + number)}
            client.sessions.push(made.session_id, [record], wait=True)

    pushing = threading.Thread(target=push)
    pushing.start()
    try:
        while not seen or seen[-1][0] < RECORDS:
            state = reader.sessions.get(made.session_id)
            held = state.context_text.splitlines()
            seen.append((state.data_count, sum(bool(LINE.fullmatch(line)) for line in held)))
    finally:
        pushing.join()
        client.sessions.delete(made.session_id)
    assert all(count == lines for count, lines in seen), seen
    assert len({count for count, _ in seen}) > 3, "the state was never seen on the way"
