"""LayerScale's client 0.8, unmodified, against a running worker: every method of it, checked
against what the session holds as client 0.3 sees it."""

import asyncio
import contextlib
import time

import llama_cpp
import pytest
from layerscale import LayerScale

from flashfeed.engine import find_packaged_model

from client_packages import module_beside

pytestmark = [pytest.mark.model, pytest.mark.broker]

v08 = module_beside("layerscale==0.8.0", "layerscale", "layerscale_v08")
ws = __import__("layerscale_v08.lib.ws", fromlist=["ws"])

CLIENT = "layerscale 0.8.0 (PyPI)"
TEXTS = ["AAPL 187.44 +0.5%", "MSFT 420.21 -0.1%", "NVDA 131.90 +2.4%"]
QUESTION = "Which symbol rose most?"


def client_method(name):
    return pytest.mark.client(CLIENT, name)


@pytest.fixture
def client(worker):
    with v08.LayerScale(base_url=worker.url, timeout=60) as client:
        yield client


@pytest.fixture
def other(worker):
    """Client 0.3, which can see the context."""
    with LayerScale(base_url=worker.url, timeout=60) as client:
        yield client


@pytest.fixture
def session(client):
    session = client.sessions.create()
    yield session
    with contextlib.suppress(v08.NotFoundError):
        client.sessions.delete(session.id)


@client_method("health.check")
@client_method("metrics.get")
def test_the_server_is_there(client):
    health = client.health.check()
    assert (health.ok, health.status, health.body.status) == (True, 200, "ok")
    assert "flashfeed_" in client.metrics.get()


@client_method("sessions.create")
@client_method("sessions.get")
@client_method("sessions.list")
@client_method("sessions.delete")
def test_a_session_from_create_to_delete(client, other):
    name = f"feed-{time.time_ns()}"
    before = int(time.time())
    made = client.sessions.create(id=name)
    assert (made.id, made.object) == (name, "session")
    assert before <= made.created <= made.last_used <= before + 60
    assert (made.turns, made.evicted, made.pending, made.data_version) == (0, 0, 0, 0)
    assert (made.busy, made.ready, made.pre_decode) == (False, False, False)
    assert made.window is made.frozen_end is made.ready_token is None
    with pytest.raises(v08.ConflictError) as again:
        client.sessions.create(id=name)
    assert again.value.code == "already_exists"

    state = other.sessions.get(name)
    assert made.tokens == made.kv_tokens == made.data_end == state.n_tokens
    later = client.sessions.create()
    listed = client.sessions.list()
    assert listed.object == "list"
    ids = [one.id for one in listed.data]
    assert ids.index(name) < ids.index(later.id)
    assert [one.session_id for one in other.sessions.list().sessions] == ids

    for one in (later.id, name):
        gone = client.sessions.delete(one)
        assert (gone.id, gone.object, gone.deleted) == (one, "session.deleted", True)
        with pytest.raises(v08.NotFoundError):
            client.sessions.get(one)


@client_method("sessions.push")
def test_pushed_texts_are_items_in_their_order(client, other, session):
    ack = client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)
    assert (ack.pushed, ack.dropped, ack.total_pushed, ack.total_dropped) == (3, 0, 3, 0)
    assert ack.data_version == 0
    one = client.sessions.push(session.id, "TSLA 250.00 -3.0%", wait=True, wait_timeout=20)
    assert (one.pushed, one.total_pushed, one.data_version) == (1, 4, 1)

    held, state = client.sessions.get(session.id), other.sessions.get(session.id)
    assert state.context_text.endswith("\n".join([*TEXTS, "TSLA 250.00 -3.0%"]) + "\n")
    assert held.tokens == held.kv_tokens == held.data_end == state.n_tokens > session.tokens
    assert (held.data_version, held.pending, held.evicted) == (2, 0, 0)
    assert state.data_count == 0  # records; texts are none
    status = other.sessions.stream_status(session.id)
    assert status.statistics.items_processed == status.statistics.total_enqueued == 4


@client_method("sessions.push")
def test_a_repeated_push_of_texts_is_applied_once_and_can_be_waited_for(worker, other, session):
    once = {"Idempotency-Key": f"texts-of-{session.id}"}
    with v08.LayerScale(base_url=worker.url, default_headers=once) as repeating:
        for _ in range(2):
            repeating.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)
    assert other.sessions.get(session.id).context_text.count(TEXTS[0]) == 1


def test_what_cannot_be_pushed_is_said(client, other, session):
    for data, says in [([], "one text at least"), ("", "empty"), (["a", " "], r"data\[1\]")]:
        with pytest.raises(v08.BadRequestError, match=says):
            client.sessions.push(session.id, data)
    with pytest.raises(v08.BadRequestError) as long:
        client.sessions.push(session.id, "word " * 3000)
    assert long.value.context_overflow
    with pytest.raises(v08.NotFoundError):
        client.sessions.push("nobody", "text")
    client.sessions.push(session.id, "still there", wait=True, wait_timeout=20)
    assert other.sessions.get(session.id).context_text.endswith("still there\n")


@client_method("sessions.push")
def test_a_session_without_a_window_is_full_at_last_and_says_so(client, other):
    session = other.sessions.create(type="event", context=128).session_id
    with pytest.raises(v08.BadRequestError) as full:
        for number in range(40):
            client.sessions.push(session, f"reading {number}")
            time.sleep(0.05)
    assert full.value.context_overflow
    state, held = other.sessions.get(session), client.sessions.get(session)
    assert state.n_tokens == held.tokens <= 128
    kept = [line for line in state.context_text.splitlines() if line.startswith("reading")]
    assert kept == [f"reading {number}" for number in range(len(kept))]
    assert len(kept) > 10
    assert other.sessions.stream_status(session).streaming.error
    client.sessions.delete(session)


@client_method("sessions.create")
def test_a_window_of_tokens_slides_and_counts_what_it_evicts(client, other):
    window = 60
    session = client.sessions.create(window=window)
    assert session.window == window
    lines = [f"reading {number} is {number * 7}" for number in range(24)]
    for start in range(0, len(lines), 4):
        client.sessions.push(session.id, lines[start : start + 4], wait=True, wait_timeout=20)
        held = client.sessions.get(session.id)
        assert held.tokens - session.tokens <= window
    text = other.sessions.get(session.id).context_text
    kept = [line for line in lines if f"{line}\n" in text]
    assert kept == lines[-len(kept) :]
    assert 1 < len(kept) < len(lines)
    assert held.evicted == len(lines) - len(kept)
    with pytest.raises(v08.BadRequestError):
        client.sessions.push(session.id, "word " * 100)
    with pytest.raises(v08.BadRequestError, match="window"):
        client.sessions.create(window=1_000_000)
    client.sessions.delete(session.id)


@client_method("sessions.create")
def test_a_pre_decoded_session_knows_the_models_next_word(client, other):
    session = client.sessions.create(pre_decode=True)
    assert (session.pre_decode, session.ready) == (True, False)
    with client.sessions.events(session.id) as events:
        stream = iter(events)
        assert next(stream).type == "connected"
        client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)
        assert next(stream).type == "data_updated"  # it is no standing question
    assert client.sessions.list_flash(session.id).data == []
    held = client.sessions.get(session.id)
    assert held.ready
    assert held.ready_gap >= 0
    said = other.sessions.query(session.id, max_tokens=1)
    model = llama_cpp.Llama(str(find_packaged_model()), vocab_only=True, verbose=False)
    assert model.detokenize([held.ready_token]).decode() == said.text
    client.sessions.delete(session.id)


@client_method("sessions.generate")
@client_method("sessions.generate_stream")
def test_a_generation_is_the_one_that_client_03_gets(client, other, session):
    client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)
    said = client.sessions.generate(session.id, prompt=QUESTION, max_tokens=8)
    same = other.sessions.query(session.id, prompt=QUESTION, max_tokens=8)
    assert (said.text, said.finish_reason) == (same.text, same.finish_reason)
    assert (said.object, said.session_id) == ("session.generation", session.id)
    assert said.usage.completion_tokens == same.n_tokens == 8
    held = client.sessions.get(session.id)
    assert said.usage.prompt_tokens_details.cached_tokens == held.tokens == same.total_tokens
    assert said.usage.prompt_tokens > held.tokens
    assert said.usage.total_tokens == said.usage.prompt_tokens + 8
    assert said.data_version == held.data_version == 1
    assert held.turns == 2
    assert said.flash is said.speculative is None

    *texts, done = client.sessions.generate_stream(
        session.id, prompt=QUESTION, max_completion_tokens=8
    )
    assert "".join(chunk.text for chunk in texts) == said.text
    assert isinstance(done, v08.types.GenerationDone)
    assert (done.finish_reason, done.data_version) == ("length", 1)
    assert done.usage == said.usage
    assert client.sessions.get(session.id).turns == 3


@client_method("sessions.generate")
def test_sampling_options_are_honoured(client, session):
    client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)

    def ask(**options):
        return client.sessions.generate(session.id, prompt=QUESTION, max_tokens=8, **options)

    wild = {"temperature": 2.0, "top_p": 0.95}
    assert ask(seed=4, **wild).text == ask(seed=4, **wild).text
    assert len({ask(seed=seed, **wild).text for seed in range(4)}) > 1
    assert ask(seed=1, temperature=2.0, top_p=0.0).text == ask().text
    free = ask().text
    word = free.split()[1]
    assert ask(stop=word).text == free.split(word)[0]
    ended = client.sessions.generate(session.id, prompt="Say yes.", max_tokens=40)
    longer = client.sessions.generate(session.id, prompt="Say yes.", max_tokens=40, ignore_eos=True)
    assert longer.usage.completion_tokens == 40
    assert ended.usage.completion_tokens <= 40
    assert ask(reasoning_effort="none", chat_template_kwargs={"enable_thinking": False}).text
    with pytest.raises(v08.BadRequestError, match="without thinking"):
        ask(reasoning_effort="high")
    with pytest.raises(v08.BadRequestError):
        ask(stop=["x" * 300])


@client_method("sessions.generate")
def test_a_list_of_answers_is_scored(client, session):
    client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)

    def ask(choices, threshold):
        return client.sessions.generate(
            session.id,
            prompt="Did NVDA rise?",
            fast_answer=choices,
            gap_threshold=threshold,
            max_tokens=3,
        )

    hit = ask(["yes", "no"], 0.0)
    assert hit.speculative
    assert hit.text in ("yes", "no")
    assert (hit.usage.prompt_tokens, hit.usage.total_tokens) == (0, None)
    assert 0.5 <= hit.confidence <= 1
    mirrored = ask(["no", "yes"], 0.0)
    assert (mirrored.text, mirrored.logit_gap) == (hit.text, pytest.approx(hit.logit_gap, abs=0.1))
    assert ask(["yes", "no"], hit.logit_gap - 0.1).speculative
    free = ask(["yes", "no"], hit.logit_gap + 0.1)
    assert free.speculative is None
    assert free.usage.completion_tokens > 0
    [text, done] = client.sessions.generate_stream(
        session.id, prompt="Did NVDA rise?", fast_answer=["yes", "no"], gap_threshold=0.0
    )
    assert (text.text, done.speculative) == (hit.text, True)
    with pytest.raises(v08.BadRequestError, match="choices"):
        ask(["yes"], 0.0)


@client_method("sessions.flash")
@client_method("sessions.list_flash")
@client_method("sessions.unflash")
def test_standing_questions(client, other, session):
    asked = client.sessions.flash(session.id, QUESTION, max_tokens=4)
    assert (asked.id, asked.object, asked.query, asked.max_tokens) == (
        1,
        "flash.query",
        QUESTION,
        4,
    )
    assert (asked.fresh, asked.value, asked.evaluated_at) == (False, None, None)
    assert asked.tokens > 3
    with pytest.raises(v08.ConflictError):
        client.sessions.flash(session.id, QUESTION)
    assert client.sessions.flash(session.id, "Any more?", max_tokens=9999).max_tokens == 512

    client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=30)
    listed = client.sessions.list_flash(session.id)
    first = listed.data[0]
    assert listed.data_version == first.data_version == 1
    assert (first.fresh, first.id) == (True, 1)
    assert first.value
    assert abs(first.evaluated_at - time.time()) < 60
    hit = client.sessions.generate(session.id, prompt=QUESTION, fast_answer=[first.value, "none"])
    assert (hit.flash, hit.flash_id, hit.text) == (True, 1, first.value)
    assert hit.usage.completion_tokens == 0

    with client.sessions.events(session.id) as events:
        stream = iter(events)
        connected, *replayed = [next(stream) for _ in range(3)]
        assert (connected.session_id, connected.flash_queries) == (session.id, 2)
        assert [(event.type, event.id) for event in replayed] == [
            ("flash_ready", 1),
            ("flash_ready", 2),
        ]
        assert replayed[0].value == first.value
    with other.sessions.events(session.id) as events:  # 0.3 would take them for new ones
        stream = iter(events)
        assert next(stream).type == "connected"
        client.sessions.push(session.id, "more")
        assert next(stream).data_version == 2
    gone = client.sessions.unflash(session.id, 2)
    assert (gone.id, gone.deleted, gone.remaining) == (2, True, 1)
    with pytest.raises(v08.NotFoundError):
        client.sessions.unflash(session.id, 2)


@client_method("sessions.events")
def test_events_come_while_texts_are_pushed(client, session):
    client.sessions.flash(session.id, QUESTION, max_tokens=2)
    with client.sessions.events(session.id) as events:
        stream = iter(events)
        assert next(stream).type == "connected"
        for version, text in enumerate(TEXTS[:2], start=1):
            client.sessions.push(session.id, text)
            ready, updated = next(stream), next(stream)
            assert (ready.type, ready.query, ready.data_version) == (
                "flash_ready",
                QUESTION,
                version,
            )
            assert (updated.type, updated.data_version) == ("data_updated", version)
            assert updated.pending == 0
            assert updated.pos_next == client.sessions.get(session.id).tokens


@client_method("sessions.ws")
def test_the_websocket(client, other, session):
    with client.sessions.ws(session.id) as socket:
        events = iter(socket)
        connected = next(events)
        assert (type(connected), connected.data.session_id) == (ws.WsConnected, session.id)
        socket.push(TEXTS)
        ack, updated = next(events), next(events)
        assert (type(ack), type(updated)) == (ws.WsPushAck, ws.WsDataUpdated)
        assert (ack.data.pushed, ack.data.total_pushed, ack.data.data_version) == (3, 3, 0)
        assert updated.data.data_version == 1
        socket.push("one more")
        assert [type(next(events)) for _ in range(2)] == [ws.WsPushAck, ws.WsDataUpdated]
        socket.push("")
        wrong = next(events)
        assert (type(wrong), wrong.data.code) == (ws.WsError, 400)
        socket.ping()
        assert isinstance(next(events), ws.WsPong)
    text = other.sessions.get(session.id).context_text
    assert text.endswith("\n".join([*TEXTS, "one more"]) + "\n")
    with pytest.raises(v08.NotFoundError):
        client.sessions.ws("nobody")
    with pytest.raises(v08.BadRequestError):
        client.sessions.ws("x" * 600)


@client_method("sessions.warm")
def test_a_warm_turn_is_there_when_its_turn_comes(client, other, session):
    client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)
    messages = [{"role": "user", "content": "Name the symbols that rose today, please."}]
    held = client.sessions.get(session.id)
    first = client.sessions.warm(session.id, messages=messages)
    assert (first.finish_reason, first.session_id) == ("warmed", session.id)
    assert first.cached_tokens == held.tokens < first.prompt_tokens
    assert (first.prefix_cached_tokens, first.data_version) == (0, held.data_version)
    again = client.sessions.warm(session.id, messages=messages)
    assert (again.finish_reason, again.prompt_tokens) == ("covered", first.prompt_tokens)
    turn = other.sessions.query(session.id, messages=messages, max_tokens=4)
    assert turn.usage["prompt_tokens"] == first.prompt_tokens
    assert turn.usage["prompt_tokens_details"]["cached_tokens"] == first.prompt_tokens - 1
    assert client.sessions.get(session.id).turns == 1  # warming is no turn
    client.sessions.push(session.id, "new data", wait=True, wait_timeout=20)
    after = client.sessions.warm(session.id, messages=messages)
    assert (after.finish_reason, after.data_version) == ("warmed", 2)
    with pytest.raises(v08.BadRequestError) as long:
        content = "word " * 2500
        client.sessions.warm(session.id, messages=[{"role": "user", "content": content}])
    assert long.value.context_overflow


@client_method("sessions.warm")
async def test_a_turn_takes_over_from_a_warm_one_and_not_the_other_way(worker):
    async with v08.AsyncLayerScale(base_url=worker.url, timeout=60) as client:
        session = await client.sessions.create()
        await client.sessions.push(session.id, TEXTS, wait=True, wait_timeout=20)
        long = [{"role": "user", "content": "word " * 1500}]
        warming = asyncio.create_task(client.sessions.warm(session.id, messages=long))
        await asyncio.sleep(0.3)
        said = await client.sessions.generate(session.id, prompt=QUESTION, max_tokens=2)
        assert said.text
        warm = await warming
        assert warm.finish_reason == "cancelled"
        assert warm.prompt_tokens > 1500

        chunks = await client.sessions.generate_stream(
            session.id, prompt=QUESTION, max_tokens=300, ignore_eos=True
        )
        reading = aiter(chunks)  # its end would be the end of the generation
        assert (await anext(reading)).text
        with pytest.raises(v08.ConflictError) as busy:
            await client.sessions.warm(session.id, messages=long)
        assert busy.value.code == "session_busy"
        assert (await client.sessions.get(session.id)).busy
        await chunks.close()
        await client.sessions.delete(session.id)


async def test_the_async_client(worker):
    async with v08.AsyncLayerScale(base_url=worker.url, timeout=60) as client:
        assert (await client.health.check()).ok
        assert "flashfeed_" in await client.metrics.get()
        session = await client.sessions.create()
        assert session.id in [one.id for one in (await client.sessions.list()).data]
        asked = await client.sessions.flash(session.id, QUESTION, max_tokens=1)
        listed = await client.sessions.list_flash(session.id)
        assert [(one.id, one.query) for one in listed.data] == [(asked.id, QUESTION)]
        assert (await client.sessions.unflash(session.id, asked.id)).remaining == 0
        messages = [{"role": "user", "content": "Hello"}]
        assert (await client.sessions.warm(session.id, messages=messages)).data_version == 0
        ack = await client.sessions.push(session.id, "first", wait=True, wait_timeout=20)
        assert (ack.pushed, ack.data_version) == (1, 0)
        async with await client.sessions.events(session.id) as events:
            assert (await anext(aiter(events))).data_version == 1
        async with client.sessions.ws(session.id) as socket:
            await socket.push(TEXTS)
            kinds = []
            async for event in socket:
                kinds.append(type(event))
                if isinstance(event, ws.WsDataUpdated):
                    break
        assert kinds == [ws.WsConnected, ws.WsPushAck, ws.WsDataUpdated]
        said = await client.sessions.generate(session.id, prompt=QUESTION, max_tokens=3)
        stream = await client.sessions.generate_stream(session.id, prompt=QUESTION, max_tokens=3)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.text for chunk in chunks[:-1]) == said.text
        assert (await client.sessions.delete(session.id)).deleted


def test_both_clients_side_by_side_on_one_session(client, other):
    made = other.sessions.create(
        type="ohlcv", prompt="You watch the market.", flash=[{"query": "Up?", "max_tokens": 2}]
    )
    name = made.session_id
    candle = {"o": 150.2, "h": 150.8, "l": 150.1, "c": 150.7, "v": 1000, "sym": "AAPL"}
    with other.sessions.events(name) as old, client.sessions.events(name) as new:
        streams = iter(old), iter(new)
        assert [next(stream).type for stream in streams] == ["connected", "connected"]
        other.sessions.push(name, [candle], wait=True)
        client.sessions.push(name, "The chairman spoke.", wait=True, wait_timeout=20)
        seen = [[next(stream) for _ in range(4)] for stream in streams]
    for events in seen:
        assert [(event.type, event.data_version) for event in events] == [
            ("flash_ready", 1),
            ("data_updated", 1),
            ("flash_ready", 2),
            ("data_updated", 2),
        ]
    state, held = other.sessions.get(name), client.sessions.get(name)
    first, second = state.context_text.splitlines()[-2:]
    assert first.startswith("AAPL 150.70")
    assert second == "The chairman spoke."
    assert (state.n_tokens, state.data_count) == (held.tokens, 1)
    assert other.sessions.stats(name).count == 1
    [one], [same] = (
        other.sessions.list_flash(name).flash_queries,
        client.sessions.list_flash(name).data,
    )
    assert (one.id, one.value, one.n_tokens) == (same.id, same.value, same.tokens)
    assert one.evaluated_at // 1000 == same.evaluated_at
    texts = {
        other.sessions.query(name, prompt="And now?", max_tokens=4).text,
        client.sessions.generate(name, prompt="And now?", max_tokens=4).text,
    }
    assert len(texts) == 1
    state = other.sessions.get(client.sessions.create(id=f"side-{time.time_ns()}").id)
    assert state.type == "event"
    other.sessions.push(
        state.session_id, [{"src": "db", "sev": 3, "cat": "slow", "cnt": 2}], wait=True
    )
    client.sessions.push(state.session_id, "It was a deploy.", wait=True, wait_timeout=20)
    assert other.sessions.stats(state.session_id).total_event_count == 2
    for one in (name, state.session_id):
        client.sessions.delete(one)
