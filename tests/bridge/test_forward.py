"""Any worker's bridge serves any session: two real workers, asked through the wrong one."""

import asyncio
import re
import time

import httpx
import pytest
import websockets
from anthropic import Anthropic
from layerscale import LayerScale, NotFoundError
from layerscale.lib.ws import WsConnected, WsDataUpdated, WsFlashReady, WsPong, WsPushAck
from llama_stack_asked import ASKED, GREEDY, INSTRUCTIONS, KNOWN, model_id, push
from llama_stack_client import LlamaStackClient
from llama_stack_client import NotFoundError as LlamaStackNotFound
from openai import OpenAI

from flashfeed.agents.key_partition import partition_of
from flashfeed.bridge.stats import stream_stats

from cluster import SECRET, group_of, read_owners

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


def held(client, session_id):
    """What a session holds, without what only the time says."""
    kept = {"session_id", "context_text", "n_tokens", "data_count", "data_version"}
    return client.sessions.get(session_id).model_dump(include=kept)


def test_every_call_through_the_wrong_worker_is_the_owners_answer(far):
    wrong, right, session_id = far
    ack = wrong.sessions.push(session_id, CANDLES, wait=True)
    assert (ack.pushed, ack.total_enqueued) == (2, 2)
    assert held(wrong, session_id) == held(right, session_id)
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


def test_other_dialects_find_the_session_by_header_and_body(group, far):
    wrong, _, session_id = far
    wrong.sessions.push(session_id, CANDLES, wait=True)
    asked = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 2}
    texts, model = [], wrong.models.list().data[0].id
    for member in group.members:
        with OpenAI(base_url=f"{member.url}/v1", api_key="none", timeout=60) as client:
            answer = client.chat.completions.create(
                model=model,
                temperature=0,
                extra_headers={"x-layerscale-session-id": session_id},
                **asked,
            )
            texts.append(answer.choices[0].message.content)
        with Anthropic(base_url=member.url, api_key="none", timeout=60) as client:
            said = client.messages.create(
                model=model, extra_body={"session_id": session_id, "temperature": 0}, **asked
            )
            texts.append(said.content[0].text)
    assert len(set(texts)) == 1
    assert texts[0]


def test_an_id_of_the_clients_choice_is_made_where_it_belongs(group):
    first, second = group.members
    owners = group.owners()
    made = set()
    for number in range(6):
        name = f"mine-{number}"
        body = {"id": name, "window": 64}
        answer = httpx.post(f"{first.url}/v1/sessions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"] == name
        again = httpx.post(f"{second.url}/v1/sessions", json=body, timeout=60)
        assert again.status_code == 409, "whoever is asked"
        made.add(owners[partition_of(name, group.partitions)])
        assert httpx.delete(f"{second.url}/v1/sessions/{name}").is_success
    assert made == {first.url, second.url}


def test_agents_sessions_are_listed_wherever_they_are(group):
    first, second = group.members
    with (
        LlamaStackClient(base_url=first.url, timeout=60) as one,
        LlamaStackClient(base_url=second.url, timeout=60) as other,
    ):
        model = one.models.list()[0].identifier
        agent = one.agents.create(
            agent_config={"model": model, "instructions": "Be brief.", "max_infer_iters": 1}
        )
        made = [
            client.agents.session.create(agent_id=agent.agent_id, session_name=name).session_id
            for client, name in ((one, "a"), (other, "b"))
        ]
        for client in (one, other):
            for session_id, name in zip(made, "ab", strict=True):
                found = client.agents.session.retrieve(session_id, agent_id=agent.agent_id)
                assert found.session_name == name
        for member in group.members:
            listed = httpx.get(f"{member.url}/v1/agents/{agent.agent_id}/sessions").json()["data"]
            assert [one["session_id"] for one in listed] == made


def test_an_agents_turns_are_answered_by_the_sessions_worker(group):
    first, second = group.members
    with (
        LlamaStackClient(base_url=first.url, timeout=60) as one,
        LlamaStackClient(base_url=second.url, timeout=60) as other,
    ):
        config = {"model": model_id(first.url), "instructions": INSTRUCTIONS}
        agent_id = one.agents.create(agent_config=config | {"sampling_params": GREEDY}).agent_id
        session_ids = [
            client.agents.session.create(
                agent_id=agent_id, session_name="s", extra_body={"type": "iot"}
            ).session_id
            for client in (one, other)
        ]
        asked = [{"role": "user", "content": ASKED}]
        for session_id, wrong in zip(session_ids, (other, one), strict=True):
            where = {"agent_id": agent_id, "session_id": session_id}
            push(str(wrong.base_url).rstrip("/"), session_id)
            chunks = list(wrong.agents.turn.create(**where, messages=asked, stream=True))
            turn = chunks[-1].event.payload.turn
            assert turn.output_message.content == KNOWN
            assert wrong.agents.turn.retrieve(turn.turn_id, **where) == turn
        # Its sessions are at two workers: what is asked again until all are ended.
        one.with_options(max_retries=4).agents.delete(agent_id)
        for session_id in session_ids:
            assert httpx.get(f"{first.url}/v1/sessions/{session_id}/state").status_code == 404
        with pytest.raises(LlamaStackNotFound):
            one.agents.delete(agent_id)


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
    endless = {"prompt": "A tale.", "max_tokens": 3000, "ignore_eos": True, "stream": True}
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", url, json=endless) as answer,
    ):
        lines = answer.aiter_lines()  # kept: where it is let go, the answer is closed
        await anext(lines)
        listed = await asyncio.to_thread(right.sessions.list)
        [mine] = [one for one in listed.sessions if one.session_id == session_id]
        assert mine.in_use
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        listed = await asyncio.to_thread(right.sessions.list)
        [mine] = [one for one in listed.sessions if one.session_id == session_id]
        if not mine.in_use:
            break
        await asyncio.sleep(0.1)
    assert not mine.in_use
    page = (await asyncio.to_thread(httpx.get, f"{group.members[1].url}/metrics")).text
    [generated] = re.findall(r"^flashfeed_generated_tokens_total (\S+)", page, re.M)
    assert float(generated) < 700, "the generation went on for nobody"  # the context has 1,024


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
            listed = [one.session_id for one in client.sessions.list().sessions]
            assert listed == [session.session_id]
            asked = held(client, session.session_id)
        with LayerScale(base_url=owner, timeout=60) as client:
            assert held(client, session.session_id) == asked
        assert asked["data_count"] == 2


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


def test_a_tenant_is_the_same_at_every_worker(broker, tmp_path, monkeypatch):
    """A key is asked for once, where the request comes in; the owner goes by the tenant."""
    keys = {"ann": "ann-has-a-long-key-here", "bob": "bob-has-a-long-key-too"}
    named = ",".join(f"{tenant}:{key}" for tenant, key in keys.items())
    monkeypatch.setenv("FLASHFEED_TEST_KEYS", named)
    home = tmp_path / "tenancy"  # the topics' names begin so: no other module's
    home.mkdir()
    with group_of(broker, home, bridge='api_keys_env = "FLASHFEED_TEST_KEYS"') as group:
        first, second = group.members
        near, far = (
            [LayerScale(base_url=one.url, api_key=key, timeout=60) for key in keys.values()]
            for one in (first, second)
        )
        session_id = far[0].sessions.create(type="ohlcv", flash=FLASH).session_id
        mine = near[0].sessions.create(type="ohlcv").session_id
        near[0].sessions.push(session_id, CANDLES, wait=True)
        assert held(near[0], session_id) == held(far[0], session_id)
        assert held(near[0], session_id)["data_count"] == 2
        with near[0].sessions.events(session_id) as events:
            assert next(iter(events)).session_id == session_id
        for ann, bob in (near, far):
            assert {one.session_id for one in ann.sessions.list().sessions} == {session_id, mine}
            assert bob.sessions.list().sessions == []
            for name in (session_id, mine, "nobody"):
                with pytest.raises(NotFoundError) as refused:
                    bob.sessions.get(name)
                assert str(refused.value).count(name) == 1
            unknown = httpx.get(f"{first.url}/v1/sessions/{session_id}/state")
            assert unknown.status_code == 401
        log = first.log.read_text() + second.log.read_text()
        assert "long-key" not in log
        assert SECRET not in log
