"""Any worker's bridge serves any session: two real workers, asked through the wrong one."""

import asyncio
import time

import httpx
import pytest
import websockets
from layerscale import LayerScale, NotFoundError
from layerscale.lib.ws import WsConnected, WsDataUpdated, WsFlashReady, WsPong, WsPushAck

from flashfeed.agents.placement import partition_of
from flashfeed.bridge.stats import stream_stats

from cluster import group_of, read_owners

pytestmark = [pytest.mark.model, pytest.mark.broker]

FLASH = [{"query": "Is the trend bullish or bearish?", "choices": ["bullish", "bearish"]}]
CANDLES = [
    {"o": 185.5, "h": 186.2, "l": 185.1, "c": 185.8, "v": 12500},
    {"o": 185.8, "h": 186.5, "l": 185.6, "c": 186.3, "v": 8700},
]


@pytest.fixture(scope="module")
def group(broker, tmp_path_factory):
    with group_of(broker, tmp_path_factory.mktemp("forward")) as group:
        assert len(set(group.owners().values())) == 2, "each has some partitions"
        yield group


@pytest.fixture
def far(group):
    """A client of the first worker, one of the second, and a session of the second's."""
    first, second = group.members
    with (
        LayerScale(base_url=first.url, timeout=60) as wrong,
        LayerScale(base_url=second.url, timeout=60) as right,
    ):
        session = right.sessions.create(type="ohlcv", flash=FLASH)
        assert group.owner_of(session.session_id) == second.url
        yield wrong, right, session.session_id
        right.sessions.delete(session.session_id)


def test_every_call_through_the_wrong_worker_is_the_owners_answer(far):
    wrong, right, session_id = far
    ack = wrong.sessions.push(session_id, CANDLES, wait=True)
    assert (ack.pushed, ack.total_enqueued) == (2, 2)
    assert wrong.sessions.get(session_id) == right.sessions.get(session_id)
    assert wrong.sessions.stats(session_id).model_dump() == stream_stats("ohlcv", CANDLES)
    appended = wrong.sessions.append(session_id, "The market closes at four.")
    assert appended.n_tokens_added > 0
    assert "The market closes at four." in right.sessions.get(session_id).context_text

    asked = {"prompt": "Describe the price action.", "max_tokens": 6, "temperature": 0}
    result = wrong.sessions.query(session_id, **asked)
    assert result.text == right.sessions.query(session_id, **asked).text
    chunks = list(wrong.sessions.query_stream(session_id, **asked))
    assert chunks[-1].text == result.text
    assert len(chunks) > 2, "piece by piece"

    wrong.sessions.flash(session_id, "Is the volume high or low?", max_tokens=2)
    assert wrong.sessions.list_flash(session_id) == right.sessions.list_flash(session_id)
    assert wrong.sessions.unflash(session_id, 2).remaining == 1
    assert wrong.sessions.mark_prefix(session_id)
    assert right.sessions.get(session_id).data_count == 0


def test_events_come_through_as_they_happen(far):
    wrong, _, session_id = far
    with wrong.sessions.events(session_id) as events:
        stream = iter(events)
        assert next(stream).type == "connected"
        for version, candle in enumerate(CANDLES, start=1):
            wrong.sessions.push(session_id, [candle])
            flash, updated = next(stream), next(stream)
            assert (flash.type, flash.data_version) == ("flash_ready", version)
            assert (updated.type, updated.data_count) == ("data_updated", version)


def test_a_websocket_goes_both_ways_and_ends_as_the_owner_ends_it(group, far):
    wrong, right, _ = far
    session_id = right.sessions.create(type="ohlcv", flash=FLASH).session_id
    with wrong.sessions.stream(session_id) as socket:
        events = iter(socket)
        assert isinstance(next(events), WsConnected)
        socket.push(CANDLES)
        got = [next(events) for _ in range(3)]
        assert [type(one) for one in got] == [WsPushAck, WsFlashReady, WsDataUpdated]
        socket.ping()
        assert isinstance(next(events), WsPong)
        wrong.sessions.delete(session_id)
        assert list(events) == []
    with pytest.raises(NotFoundError):
        right.sessions.get(session_id)


async def test_a_socket_of_no_session_is_the_owners_404(group):
    owners = await read_owners(group.brokers, f"{group.name}.owners")
    names = (f"nobody{number}" for number in range(99))
    second = group.members[1].url
    nobody = next(one for one in names if owners[partition_of(one, group.partitions)] == second)
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(
            group.members[0].url.replace("http", "ws") + f"/v1/sessions/{nobody}/ws"
        )
    assert refused.value.response.status_code == 404
    assert nobody.encode() in refused.value.response.body


def test_lists_span_the_workers(group, far):
    wrong, right, session_id = far
    near = wrong.sessions.create(type="iot").session_id
    for client in (wrong, right):
        listed = {one.session_id for one in client.sessions.list().sessions}
        assert {near, session_id} <= listed
    wrong.sessions.delete(near)


def test_errors_of_the_owner_come_through(group, far):
    _, _, session_id = far
    url = f"{group.members[0].url}/v1/sessions/{session_id}/stream/push"
    answer = httpx.post(url, json={"data": [{"o": 1}]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "data[0]"


async def test_a_client_that_goes_away_stops_the_owners_generation(group, far):
    _, right, session_id = far
    url = f"{group.members[0].url}/v1/sessions/{session_id}/generate"
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream(
            "POST", url, json={"prompt": "Tell a story.", "max_tokens": 400, "stream": True}
        ) as answer,
    ):
        async for _ in answer.aiter_lines():
            break
        listed = await asyncio.to_thread(right.sessions.list)
        [mine] = [one for one in listed.sessions if one.session_id == session_id]
        assert mine.in_use
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        listed = await asyncio.to_thread(right.sessions.list)
        [mine] = [one for one in listed.sessions if one.session_id == session_id]
        if not mine.in_use:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the generation goes on for nobody")


def test_a_worker_without_a_partition_serves_every_session(broker, tmp_path):
    """There are more workers than partitions: the one that is left over makes sessions at
    the other, and finds them there."""
    home = tmp_path / "idle"
    home.mkdir()
    with group_of(broker, home, partitions=1) as group:
        [owner] = group.owners().values()
        [idle] = [one.url for one in group.members if one.url != owner]
        with LayerScale(base_url=idle, timeout=60) as client:
            session = client.sessions.create(type="ohlcv", flash=FLASH)
            client.sessions.push(session.session_id, CANDLES, wait=True)
            held = client.sessions.get(session.session_id)
            assert [one.session_id for one in client.sessions.list().sessions] == [held.session_id]
        with LayerScale(base_url=owner, timeout=60) as client:
            assert client.sessions.get(session.session_id) == held
        assert held.data_count == 2


def test_without_a_secret_the_refusal_says_what_to_configure(broker, tmp_path):
    home = tmp_path / "apart"
    home.mkdir()
    with group_of(broker, home, more="") as group:
        first, second = group.members
        with LayerScale(base_url=second.url, timeout=60) as client:
            session_id = client.sessions.create(type="ohlcv").session_id
        assert group.owner_of(session_id) == second.url
        for path in (f"/v1/sessions/{session_id}/state", "/v1/sessions"):
            answer = httpx.get(first.url + path)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            message = answer.json()["error"]["message"]
            assert "[cluster] secret_env or secret_file" in message
            assert str(second.port) not in message
