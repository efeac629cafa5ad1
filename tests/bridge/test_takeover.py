"""A worker is killed while clients push through the other one: each record is in its
session exactly once afterwards, and meanwhile every answer is right, or a 503 that says
when to come back (invariants 1 and 2)."""

import asyncio
import itertools
import signal
import time

import httpx
import pytest

from flashfeed.codecs.registry import text_codec
from flashfeed.models.records import make_record

from cluster import group_of, read_owners

pytestmark = [pytest.mark.model, pytest.mark.broker]

PUSHES = 30
TAKEOVER_S = 60.0


def reading(number):
    return {"sid": "a", "val": float(number)}


def lines_of(count):
    """The lines of the readings 0 to count - 1, by the text codec itself."""
    codec, before, lines = text_codec("", "iot"), None, []
    for number in range(count):
        record = make_record("iot", reading(number))
        lines.append(codec.render(record, before).rstrip("\n"))
        before = record
    return lines


class Client:
    """Asks the bridges as a careful client does; counts what it was told to wait for."""

    def __init__(self, urls):
        self.urls = urls
        self.waits = 0
        self.http = httpx.AsyncClient(timeout=60)

    async def ask(self, method, path, **how):
        """The answer, from any worker that can be reached, as often as it takes."""
        for url in itertools.cycle(self.urls):
            try:
                answer = await self.http.request(method, url + path, **how)
            except httpx.TransportError:  # the worker that was killed
                await asyncio.sleep(0.1)
                continue
            if answer.status_code != 503:
                assert answer.status_code == 200, (method, path, answer.text)
                return answer.json()
            assert int(answer.headers["Retry-After"]) >= 1
            self.waits += 1
            await asyncio.sleep(0.2)

    async def push(self, session_id, number):
        await self.ask(
            "POST",
            f"/v1/sessions/{session_id}/stream/push",
            json={"data": [reading(number)]},
            headers={"Idempotency-Key": f"reading {number}"},
        )


async def feed(client, session_id, pushed):
    """Push readings in order, each once more under the same key, as who lost the answer."""
    for number in range(PUSHES):
        await client.push(session_id, number)
        await client.push(session_id, number)
        pushed[session_id] = number + 1
        await asyncio.sleep(0.2)


async def watch(client, sessions, pushed, done):
    """What a reader sees: never no session, never fewer records than before, never one
    that was not pushed; and never a list without them."""
    seen = dict.fromkeys(sessions, 0)
    while not done.is_set():
        for session_id in sessions:
            state = await client.ask("GET", f"/v1/sessions/{session_id}/state")
            assert seen[session_id] <= state["data_count"] <= pushed[session_id] + 1
            seen[session_id] = state["data_count"]
        listed = await client.ask("GET", "/v1/sessions")
        assert {one["session_id"] for one in listed["sessions"]} == set(sessions)
        await asyncio.sleep(0.1)


async def settled(client, session_id, count):
    deadline = time.monotonic() + TAKEOVER_S
    while time.monotonic() < deadline:
        state = await client.ask("GET", f"/v1/sessions/{session_id}/state")
        if state["data_count"] >= count:
            return state
        await asyncio.sleep(0.2)
    raise AssertionError(f"{session_id} has {state['data_count']} of {count} records")


async def exactly_once(client, session_id):
    state = await settled(client, session_id, PUSHES)
    assert state["data_count"] == PUSHES
    assert state["context_text"].splitlines()[-PUSHES:] == lines_of(PUSHES)


async def create_at(client, url):
    answer = await client.http.post(f"{url}/v1/sessions/init", json={"type": "iot"})
    return answer.json()["session_id"]


async def test_a_killed_workers_sessions_go_on_with_every_record_once(broker, tmp_path_factory):
    with group_of(broker, tmp_path_factory.mktemp("takeover")) as group:
        left, killed = group.members
        client = Client([left.url, killed.url])
        sessions = [await create_at(client, url) for url in (left.url, killed.url) * 2]
        pushed, done = dict.fromkeys(sessions, 0), asyncio.Event()
        watcher = asyncio.create_task(watch(client, sessions, pushed, done))
        feeds = [asyncio.create_task(feed(client, one, pushed)) for one in sessions]
        await asyncio.sleep(1.5)
        killed.kill()
        await asyncio.wait_for(asyncio.gather(*feeds), TAKEOVER_S * 2)
        assert client.waits > 0, "nobody noticed"
        for session_id in sessions:
            await exactly_once(client, session_id)
        done.set()
        await watcher
        owners = await read_owners(group.brokers, f"{group.name}.owners")
        assert set(owners.values()) == {left.url}


async def test_a_worker_that_was_silent_does_not_go_on_with_what_it_had(broker, tmp_path_factory):
    """It never heard that its sessions became another's, and gets them back."""
    with group_of(broker, tmp_path_factory.mktemp("silent")) as group:
        left, silent = group.members
        client = Client([left.url])
        sessions = [await create_at(client, url) for url in (left.url, silent.url) * 2]
        for session_id in sessions:
            await client.push(session_id, 0)
        silent.process.send_signal(signal.SIGSTOP)
        try:
            for number in range(1, PUSHES // 2):
                await asyncio.gather(*(client.push(one, number) for one in sessions))
        finally:
            silent.process.send_signal(signal.SIGCONT)
        client.urls.append(silent.url)
        for number in range(PUSHES // 2, PUSHES):
            await asyncio.gather(*(client.push(one, number) for one in sessions))
            await asyncio.sleep(0.3)
        for session_id in sessions:
            await exactly_once(client, session_id)
        owners = await read_owners(group.brokers, f"{group.name}.owners")
        assert len(set(owners.values())) == 2, "it is one of the group again"
