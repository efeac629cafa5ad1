"""The published client, unmodified, against a running worker: the quickstart and every
method of its sessions."""

import contextlib
import json
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from context_lines import lines_of
from layerscale import (
    AsyncLayerScale,
    BadRequestError,
    ConflictError,
    LayerScale,
    NotFoundError,
)
from layerscale.lib.ws import WsConnected, WsDataUpdated, WsError, WsFlashReady, WsPong, WsPushAck

from flashfeed.bridge.stats import stream_stats

pytestmark = [pytest.mark.model, pytest.mark.broker]

CLIENT = "layerscale 0.3.0 (PyPI)"


def client_method(name):
    return pytest.mark.client(CLIENT, name)


PROMPT = "You are a financial analyst. Analyze incoming market data."
TREND = "Is the trend bullish or bearish?"
FLASH = [
    {"query": TREND, "max_tokens": 4},
    {"query": "What is the current support level?", "max_tokens": 16},
]
CANDLES = [
    {"o": 185.5, "h": 186.2, "l": 185.1, "c": 185.8, "v": 12500},
    {"o": 185.8, "h": 186.5, "l": 185.6, "c": 186.3, "v": 8700},
]
RECORDS = {
    "ohlcv": CANDLES,
    "iot": [{"sid": "temp-01", "val": 72.5, "lo": 60.0, "hi": 85.0}],
    "vitals": [{"hr": 72.0, "bp_s": 120.0, "bp_d": 80.0, "spo2": 98.5, "temp": 36.8}],
    "spatial": [{"x": 1.0, "y": 2.0, "z": 3.0, "spd": 4.0, "hdg": 90}],
    "event": [{"src": "db", "sev": 3, "cat": "slow query", "cnt": 2}],
}


@pytest.fixture
def client(worker):
    with LayerScale(base_url=worker.url, timeout=60) as client:
        yield client


@pytest.fixture
def session_id(client):
    session = client.sessions.create(type="ohlcv", prompt=PROMPT, flash=FLASH)
    yield session.session_id
    with contextlib.suppress(NotFoundError):  # the test may have deleted it
        client.sessions.delete(session.session_id)


@client_method("health.check")
def test_the_server_is_there(client):
    health = client.health.check()
    assert (health.ok, health.status) == (True, 200)
    models = client.models.list()
    assert models.object == "list"
    assert models.data[0].id


@client_method("sessions.create")
@client_method("sessions.get")
@client_method("sessions.delete")
@client_method("sessions.push")
@client_method("sessions.query")
@client_method("sessions.query_stream")
@client_method("sessions.stream_status")
@client_method("sessions.stats")
@client_method("sessions.events")
def test_the_quickstart(client):
    session = client.sessions.create(type="ohlcv", prompt=PROMPT, flash=FLASH)
    assert (session.type, session.flash_queries) == ("ohlcv", 2)
    assert session.n_tokens == session.pos_max + 1 > 0

    with client.sessions.events(session.session_id) as events:
        stream = iter(events)
        connected = next(stream)
        assert (connected.type, connected.data_version) == ("connected", 0)
        assert connected.flash_queries == 2

        ack = client.sessions.push(session.session_id, CANDLES, wait=True)
        assert (ack.pushed, ack.dropped, ack.total_enqueued) == (2, 0, 2)

        first, second, updated = (next(stream) for _ in range(3))
    assert [(e.type, e.id, e.query) for e in (first, second)] == [
        ("flash_ready", 1, FLASH[0]["query"]),
        ("flash_ready", 2, FLASH[1]["query"]),
    ]
    assert abs(first.evaluated_at / 1000 - time.time()) < 60
    assert first.value
    assert 0 < first.confidence <= 1
    assert (updated.type, updated.data_version, updated.data_count) == ("data_updated", 1, 2)

    result = client.sessions.query(
        session.session_id, prompt="What's the trend over the last hour?", max_tokens=12
    )
    assert result.text
    assert 0 < result.n_tokens <= 12
    assert result.data_version == 1
    assert result.flash is None

    chunks = list(
        client.sessions.query_stream(
            session.session_id, prompt="What's the trend over the last hour?", max_tokens=12
        )
    )
    *tokens, done = chunks
    assert done.done
    assert "".join(chunk.token for chunk in tokens) == done.text == result.text
    assert [chunk.pos for chunk in tokens] == sorted({chunk.pos for chunk in tokens})
    assert done.finish_reason == result.finish_reason

    status = client.sessions.stream_status(session.session_id)
    assert status.streaming.queue_size == 0
    assert status.streaming.running
    assert not status.streaming.error
    assert status.statistics.items_processed == status.statistics.total_enqueued == 2
    assert status.data.data_count == 2

    stats = client.sessions.stats(session.session_id)
    assert stats.model_dump() == stream_stats("ohlcv", CANDLES)

    # A generation leaves nothing behind: the context is the prompt and the two lines.
    state = client.sessions.get(session.session_id)
    assert PROMPT in state.context_text
    assert state.context_text.endswith("".join(lines_of("ohlcv", CANDLES)))
    assert state.n_tokens == updated.pos_next == result.total_tokens

    client.sessions.delete(session.session_id)
    with pytest.raises(NotFoundError) as gone:
        client.sessions.get(session.session_id)
    assert gone.value.code == "session_not_found"


@client_method("sessions.query_stream")
@client_method("sessions.events")
async def test_the_quickstart_with_the_async_client(worker):
    async with AsyncLayerScale(base_url=worker.url, timeout=60) as client:
        session = await client.sessions.create(type="ohlcv", prompt=PROMPT, flash=FLASH)
        seen = []
        async with await client.sessions.events(session.session_id) as events:
            stream = aiter(events)
            assert (await anext(stream)).type == "connected"
            for version, candle in enumerate(CANDLES, start=1):
                await client.sessions.push(session.session_id, [candle], wait=True)
                seen += [(version, (await anext(stream))) for _ in range(3)]
        assert [(version, event.type) for version, event in seen] == [
            (event.data_version, kind)
            for (_, event), kind in zip(
                seen, ["flash_ready", "flash_ready", "data_updated"] * 2, strict=True
            )
        ]
        result = await client.sessions.query(
            session.session_id, prompt="Describe the price action.", max_tokens=8
        )
        chunks = [
            chunk
            async for chunk in await client.sessions.query_stream(
                session.session_id, prompt="Describe the price action.", max_tokens=8
            )
        ]
        assert chunks[-1].text == result.text
        stats = await client.sessions.stats(session.session_id)
        assert stats.model_dump() == stream_stats("ohlcv", CANDLES)
        await client.sessions.delete(session.session_id)
        assert session.session_id not in {
            s.session_id for s in (await client.sessions.list()).sessions
        }


@client_method("sessions.create")
@client_method("sessions.list")
def test_the_readmes_complete_example(client):
    session = client.sessions.create(
        type="ohlcv",
        prompt="You are a real-time market analyst.",
        context=1024,
        flash=[{"query": "up or down?", "choices": ["up", "down"]}],
        mark_prefix=True,
    )
    candles = [
        {**candle, "timestamp": 1_733_000_000 + 60 * place, "sym": "AAPL"}
        for place, candle in enumerate(CANDLES)
    ]
    client.sessions.push(session.session_id, candles, wait=True)
    answer = client.sessions.query(
        session.session_id, prompt="up or down?", max_tokens=8, fast_answer=True
    )
    assert (answer.flash, answer.flash_id, answer.data_version) == (True, 1, 1)
    assert answer.text in ("up", "down")
    assert 0.5 <= answer.confidence <= 1
    assert answer.logit_gap >= 0
    other = client.sessions.query(
        session.session_id, prompt="Up, down or neither?", max_tokens=4, fast_answer=True
    )
    assert other.flash is None
    assert other.text
    state = client.sessions.get(session.session_id)
    assert state.context == 1024
    assert state.prefix_end == state.data_region.start == session.n_tokens
    listed = {s.session_id: s for s in client.sessions.list().sessions}[session.session_id]
    assert (listed.prefix_end, listed.n_tokens) == (state.prefix_end, state.n_tokens)
    client.sessions.delete(session.session_id)


@client_method("sessions.mark_prefix")
def test_a_generation_that_stays_and_a_window_that_slides(client):
    session = client.sessions.create(type="iot", window_size=2).session_id
    readings = [{"sid": "a", "val": float(value)} for value in (10, 20, 30)]
    client.sessions.push(session, readings, wait=True)
    said = client.sessions.query(session, prompt="Rising?", max_tokens=3, clear_after=0)
    state = client.sessions.get(session)
    kept = f"Q: Rising?\nA: {said.text.strip()}"
    assert state.context_text.rstrip().endswith(f"a 30\n{kept}")
    assert "a 10" not in state.context_text
    assert state.data_count == 1
    assert said.total_tokens == state.n_tokens
    client.sessions.mark_prefix(session)
    client.sessions.push(session, readings, wait=True)
    state = client.sessions.get(session)
    assert kept in state.context_text  # a prefix does not slide out
    assert state.data_count == 3
    client.sessions.delete(session)


@pytest.mark.parametrize("stream_type", RECORDS)
def test_every_type_of_record(client, stream_type):
    records = RECORDS[stream_type]
    session = client.sessions.create(type=stream_type)
    client.sessions.push(session.session_id, records, wait=True)
    state = client.sessions.get(session.session_id)
    for line in lines_of(stream_type, records):
        assert line in state.context_text
    stats = client.sessions.stats(session.session_id)
    assert stats.model_dump() == stream_stats(stream_type, records)
    client.sessions.delete(session.session_id)


@client_method("sessions.append")
@client_method("sessions.flash")
@client_method("sessions.list_flash")
@client_method("sessions.unflash")
def test_append_and_flash_queries(client, session_id):
    before = client.sessions.get(session_id)
    appended = client.sessions.append(session_id, "The market opens in ten minutes.")
    assert appended.n_tokens_added == appended.total_tokens - before.n_tokens > 0
    assert "opens in ten" in client.sessions.get(session_id).context_text

    added = client.sessions.flash(session_id, "Is volume rising?", max_tokens=2)
    assert (added.id, added.max_tokens, added.total_flash_queries) == (3, 2, 3)
    assert added.n_tokens > 0
    listed = client.sessions.list_flash(session_id)
    assert [q.id for q in listed.flash_queries] == [1, 2, 3]
    assert all(q.has_answer for q in listed.flash_queries)
    assert {q.data_version for q in listed.flash_queries} == {listed.current_data_version}
    with pytest.raises(ConflictError):
        client.sessions.flash(session_id, "Is volume rising?")

    removed = client.sessions.unflash(session_id, 3)
    assert (removed.success, removed.remaining) == (True, 2)
    with pytest.raises(NotFoundError) as unknown:
        client.sessions.unflash(session_id, 3)
    assert unknown.value.code == "flash_query_not_found"


def test_a_repeated_push_is_applied_once(worker, client, session_id):
    once = {"Idempotency-Key": f"push-1-of-{session_id}"}
    with LayerScale(base_url=worker.url, default_headers=once) as repeating:
        acks = [repeating.sessions.push(session_id, CANDLES, wait=True) for _ in range(3)]
    assert [ack.pushed for ack in acks] == [2, 2, 2]
    state = client.sessions.get(session_id)
    assert state.data_count == 2
    assert client.sessions.stats(session_id).count == 2
    client.sessions.push(session_id, CANDLES, wait=True)
    assert client.sessions.get(session_id).data_count == 4


async def test_a_push_is_in_the_records_topic_when_it_is_acknowledged(worker):
    async with AsyncLayerScale(base_url=worker.url) as client:
        session = await client.sessions.create(type="ohlcv")
        await client.sessions.push(session.session_id, CANDLES)
        consumer = AIOKafkaConsumer(bootstrap_servers=worker.brokers)
        await consumer.start()
        try:
            partitions = [
                TopicPartition("flashfeed.records", number)
                for number in consumer.partitions_for_topic("flashfeed.records") or ()
            ]
            consumer.assign(partitions)
            await consumer.seek_to_beginning()
            found = []
            deadline = time.monotonic() + 10
            while not found and time.monotonic() < deadline:
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    for message in batch:
                        value = json.loads(message.value)
                        if message.key == session.session_id.encode() and "records" in value:
                            found += [packed[-1] for packed in value["records"]]
        finally:
            await consumer.stop()
        assert found == CANDLES
        await client.sessions.delete(session.session_id)


@pytest.mark.parametrize(
    ("records", "param"),
    [
        ([CANDLES[0], {"o": 1}], "data[1]"),
        ([CANDLES[0] | {"h": 1.0}], "data[0]"),
        ([CANDLES[0] | {"c": "high"}], "data[0].c"),
        ([{"sid": "a", "val": 1}], "data[0]"),
    ],
)
def test_a_push_with_a_wrong_record_writes_nothing(client, session_id, records, param):
    with pytest.raises(BadRequestError) as wrong:
        client.sessions.push(session_id, records)
    assert (wrong.value.code, wrong.value.param) == ("invalid_record", param)
    assert client.sessions.stream_status(session_id).statistics.total_enqueued == 0


def test_what_is_not_there_is_said(client, session_id):
    with pytest.raises(NotFoundError):
        client.sessions.push("nobody", CANDLES)
    with pytest.raises(NotFoundError):
        client.sessions.events("nobody")
    with pytest.raises(BadRequestError):
        client.sessions.create(type="ohlcv", context=10_000_000)


def test_a_stop_string_ends_a_generation(client, session_id):
    client.sessions.push(session_id, CANDLES, wait=True)
    free = client.sessions.query(session_id, prompt="Describe the price.", max_tokens=16)
    word = free.text.split()[1]
    stopped = client.sessions.query(
        session_id, prompt="Describe the price.", max_tokens=16, stop=[f" {word}"]
    )
    assert stopped.finish_reason == "stop"
    assert stopped.text == free.text.split(f" {word}")[0]


@client_method("sessions.stream")
def test_the_websocket(client, session_id):
    with client.sessions.stream(session_id) as socket:
        events = iter(socket)
        connected = next(events)
        assert isinstance(connected, WsConnected)
        assert connected.data.streaming
        socket.push(CANDLES)
        got = [next(events) for _ in range(4)]
        assert [type(event) for event in got] == [
            WsPushAck,
            WsFlashReady,
            WsFlashReady,
            WsDataUpdated,
        ]
        assert got[0].data.pushed == 2
        assert {event.data.data_version for event in got[1:]} == {1}
        socket.push([{"o": 1}])
        wrong = next(events)
        assert isinstance(wrong, WsError)
        assert wrong.data.code == 400
        socket.ping()
        assert isinstance(next(events), WsPong)
        # A session's end is the end of its sockets.
        client.sessions.delete(session_id)
        assert list(events) == []


async def test_the_websocket_with_the_async_client(worker):
    async with AsyncLayerScale(base_url=worker.url) as client:
        session = await client.sessions.create(type="iot")
        async with client.sessions.stream(session.session_id) as socket:
            await socket.push(RECORDS["iot"])
            kinds = []
            async for event in socket:
                kinds.append(type(event))
                if isinstance(event, WsDataUpdated):
                    break
        assert kinds == [WsConnected, WsPushAck, WsDataUpdated]
        await client.sessions.delete(session.session_id)


@client_method("sessions.get")
@client_method("sessions.append")
@client_method("sessions.mark_prefix")
@client_method("sessions.stream_status")
@client_method("sessions.flash")
@client_method("sessions.list_flash")
@client_method("sessions.unflash")
async def test_the_other_methods_of_the_async_client(worker):
    async with AsyncLayerScale(base_url=worker.url, timeout=60) as client:
        made = await client.sessions.create(type="iot", mark_prefix=True)
        session = made.session_id
        await client.sessions.push(session, RECORDS["iot"], wait=True)
        added = await client.sessions.flash(session, "Too warm?", max_tokens=2)
        [listed] = (await client.sessions.list_flash(session)).flash_queries
        assert (listed.id, listed.query, listed.has_answer) == (added.id, "Too warm?", True)
        appended = await client.sessions.append(session, "The door is open.")
        state = await client.sessions.get(session)
        assert state.context_text.endswith("The door is open.\n")
        assert state.n_tokens == appended.total_tokens
        assert state.prefix_end == made.n_tokens
        marked = await client.sessions.mark_prefix(session)
        assert marked.prefix_end == state.n_tokens
        status = await client.sessions.stream_status(session)
        assert (status.data.data_count, status.data.pos_next) == (0, state.n_tokens)
        assert (await client.sessions.unflash(session, added.id)).remaining == 0
        await client.sessions.delete(session)


TOOL = {
    "type": "function",
    "function": {
        "name": "open_valve",
        "parameters": {
            "type": "object",
            "properties": {"percent": {"type": "integer", "minimum": 0, "maximum": 100}},
            "required": ["percent"],
        },
    },
}


@client_method("sessions.query")
@client_method("sessions.query_stream")
def test_tools_over_a_session(client, session_id):
    client.sessions.push(session_id, CANDLES, wait=True)
    asked = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 40}
    messages = [{"role": "user", "content": "Open the valve half way."}]
    said = client.sessions.query(session_id, messages=messages, **asked)
    [call] = said.tool_calls
    assert (said.finish_reason, said.text) == ("tool_calls", "")
    assert call.function.name == "open_valve"
    assert 0 <= json.loads(call.function.arguments)["percent"] <= 100
    *steps, done = client.sessions.query_stream(session_id, messages=messages, **asked)
    assert [step.tool_call for step in steps] == [True]
    assert done.finish_reason == "tool_calls"
    assert done.tool_calls[0].function == call.function
    # A prompt with tools is a conversation of one message.
    same = client.sessions.query(session_id, prompt="Open the valve half way.", **asked)
    assert same.tool_calls[0].function == call.function
    follow_up = [
        *messages,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "done"},
    ]
    answer = client.sessions.query(session_id, messages=follow_up, tools=[TOOL], max_tokens=4)
    state = client.sessions.get(session_id)
    assert answer.n_tokens > 0
    assert answer.usage["prompt_tokens_details"]["cached_tokens"] > state.n_tokens
    assert state.context_text.endswith("".join(lines_of("ohlcv", CANDLES)))  # nothing stays
    with pytest.raises(BadRequestError, match="clear_after"):
        client.sessions.query(session_id, messages=messages, clear_after=0)
