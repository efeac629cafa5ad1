"""A tenant's service (agents/tenancy.py) over a service of all: its own ids, sessions and
words. Here, and not with the agents' tests, for the service in memory."""

from __future__ import annotations

import asyncio
import inspect
import re
from contextlib import aclosing, nullcontext
from typing import Any

import msgspec
import pytest

from flashfeed.agents.service import SessionService
from flashfeed.agents.tenancy import TenantSessions
from flashfeed.models.chat import ChatMessage, ChatRequest
from flashfeed.models.errors import LimitReached, RequestError, SessionExists, SessionUnknown
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.outcomes import OutcomeReport
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.tenant import SEPARATOR, check_session_id, session_key, split_key

from metrics_page import PAGE

UP = FlashQuery("Up?", name="up", choices=("yes", "no"), learn=True)
SPEC = SessionSpec(type="ohlcv", flash=(UP,), overflow="drop_oldest")
CANDLE = {"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 10}
OPTIONS = GenerateOptions(max_tokens=4)


class Ledger:
    """An allowance that writes down what was asked of it."""

    def __init__(self, sessions: int = 10, tokens: int = 10_000) -> None:
        self.sessions, self.tokens, self.held = sessions, tokens, -1

    def session(self, held: int) -> Any:
        self.held = held
        if held >= self.sessions:
            raise LimitReached("sessions", 1)
        return nullcontext()

    def check_tokens(self) -> None:
        if self.tokens <= 0:
            raise LimitReached("tokens", 1)

    def spend_tokens(self, tokens: int) -> None:
        self.tokens -= tokens


@pytest.fixture
def a(memory: Any) -> SessionService:
    return TenantSessions(memory, "a")


@pytest.fixture
def b(memory: Any) -> SessionService:
    return TenantSessions(memory, "b")


async def calls(service: SessionService, session_id: str) -> dict[str, Any]:
    """Every method that takes a session id, called; the error of each, or None."""

    async def stream() -> None:
        async with aclosing(service.generate(session_id, "hm", OPTIONS)) as pieces:
            async for _ in pieces:
                pass

    async def subscribe() -> None:
        async with service.events(session_id):
            pass

    query = FlashQuery("Down?")
    asked: dict[str, Any] = {
        "get": lambda: service.get(session_id),
        "inspect": lambda: service.inspect(session_id),
        "push": lambda: service.push(session_id, [CANDLE]),
        "append": lambda: service.append(session_id, "x"),
        "mark_prefix": lambda: service.mark_prefix(session_id),
        "add_query": lambda: service.add_query(session_id, query),
        "queries": lambda: service.queries(session_id),
        "remove_query": lambda: service.remove_query(session_id, 1),
        "items": lambda: service.items(session_id),
        "generate": stream,
        "count_tokens": lambda: service.count_tokens(session_id, "x"),
        "answer": lambda: service.answer(session_id, "x", ["y", "z"]),
        "events": subscribe,
        "warm": lambda: service.warm(session_id, ChatRequest((ChatMessage("user", "x"),))),
        "standing": lambda: service.standing(session_id),
        "outcome": lambda: service.outcome(session_id, OutcomeReport(UP.label, "yes", 1)),
        "delete": lambda: service.delete(session_id),
    }
    takes_id = {
        name
        for name, method in inspect.getmembers(SessionService, inspect.isfunction)
        if "session_id" in inspect.signature(method).parameters and name != "create"
    }
    assert takes_id <= set(asked), "a new method that takes a session id is to be named here"
    errors = {}
    for name in sorted(takes_id, key=lambda one: one == "delete"):
        try:
            result = asked[name]()
            if inspect.isawaitable(result):
                await result
            errors[name] = None
        except Exception as error:
            errors[name] = error
    return errors


async def test_a_tenants_session_holds_nobody_back(a: Any, memory: Any) -> None:
    with pytest.raises(RequestError, match="overflow"):
        await a.create(msgspec.structs.replace(SPEC, overflow="block"), "mine")
    assert not memory.sessions()
    await a.create(msgspec.structs.replace(SPEC, overflow="coalesce"), "mine")
    assert [one.session_id for one in a.sessions()] == ["mine"]


async def test_anothers_session_is_as_unknown_as_any(a: Any, b: Any, memory: Any) -> None:
    await a.create(SPEC, "mine")
    theirs = await calls(b, "mine")
    nobodys = await calls(b, "nobody")
    for name, error in theirs.items():
        assert isinstance(error, SessionUnknown), name
        assert str(error) == str(nobodys[name]).replace("nobody", "mine"), name
        assert "no session mine" in str(error) and SEPARATOR not in str(error)
    [held] = memory.held.values()
    assert (held.records, held.version, len(held.queries)) == ([], 0, 1)
    assert set((await calls(a, "mine")).values()) == {None}
    assert not memory.held


async def test_guessing_the_key_of_anothers_session_does_not_help(a: Any, b: Any) -> None:
    await a.create(SPEC, "mine")
    for guess in (f"a{SEPARATOR}mine", f"{SEPARATOR}a{SEPARATOR}mine", f"../a{SEPARATOR}mine"):
        assert all(isinstance(one, SessionUnknown) for one in (await calls(b, guess)).values())
        with pytest.raises(RequestError, match="expected a session id of 1 to 128"):
            await b.create(SPEC, guess)


async def test_the_same_id_is_free_for_every_tenant(a: Any, b: Any, memory: Any) -> None:
    for service in (a, b):
        view = await service.create(SPEC, "same")
        assert view.session_id == "same"
        assert [one.session_id for one in service.sessions()] == ["same"]
    assert {held.spec.tenant for held in memory.held.values()} == {"a", "b"}
    assert [split_key(key) for key in memory.held] == [("a", "same"), ("b", "same")]
    await a.push("same", [CANDLE])
    assert (len(a.items("same")), len(b.items("same"))) == (1, 0)
    await a.delete("same")
    assert (a.sessions(), len(b.sessions())) == ([], 1)


async def test_a_spec_cannot_name_another_tenant(b: Any, a: Any) -> None:
    await b.create(msgspec.structs.replace(SPEC, tenant="a"), "x")
    assert a.sessions() == []
    assert b.get("x").spec.tenant == "b"


async def test_every_answer_has_the_tenants_own_id(a: Any, memory: Any) -> None:
    own = (await a.create(SPEC)).session_id
    assert SEPARATOR not in own and session_key("a", own) in memory.held
    async with a.events(own) as events:
        assert (await a.push(own, [CANDLE])).view.session_id == own
        async with asyncio.timeout(5):
            assert [(await anext(events)).session_id for _ in range(2)] == [own, own]
    assert (await a.append(own, "x")).view.session_id == own
    assert (await a.mark_prefix(own)).session_id == own
    assert (await a.inspect(own)).view.session_id == own
    assert a.get(own).session_id == own


async def test_an_error_speaks_of_the_tenants_own_id(a: Any, memory: Any) -> None:
    await a.create(SPEC, "s")

    def refuse(spec: SessionSpec, session_id: str) -> Any:
        raise SessionExists(f"session {session_id} exists already")

    memory.create = refuse
    with pytest.raises(SessionExists, match=r"^session s exists already$"):
        await a.create(SPEC, "s")


async def test_documents_are_the_tenants_own(a: Any, b: Any) -> None:
    await a.documents.put("agent", "1", {"of": "a"})
    assert b.documents.get("agent", "1") is None and b.documents.list("agent") == []
    assert a.documents.get("agent", "1") == {"of": "a"}


async def test_metrics_are_of_the_tenants_sessions(a: Any, b: Any) -> None:
    await a.create(SPEC, "secret-name")
    assert b"flashfeed_sessions 1.0" in await a.metrics()
    names = re.findall(r"^(flashfeed_\w+) ", (await a.metrics()).decode(), re.M)
    assert len(names) == 3
    assert all(f"`{name}`" in PAGE.read_text() for name in names)
    assert b"flashfeed_sessions 0.0" in await b.metrics()
    assert b"secret-name" not in await a.metrics()


async def test_sessions_are_held_against_the_allowance(memory: Any, b: Any) -> None:
    ledger = Ledger(sessions=2)
    a = TenantSessions(memory, "a", ledger)
    part = a.of("part")
    await b.create(SPEC, "1")
    await a.create(SPEC, "1")
    await part.create(SPEC, "1")
    for service in (a, part):  # a part's sessions are the tenant's
        with pytest.raises(LimitReached):
            await service.create(SPEC, "2")
        assert ledger.held == 2
    await b.create(SPEC, "2")
    await a.delete("1")
    await part.create(SPEC, "2")


async def test_a_part_sees_its_own_alone(a: Any) -> None:
    part = a.of("uuid-1")
    await part.create(SPEC, "x")
    assert a.sessions() == [] and a.of("uuid-2").sessions() == []
    with pytest.raises(SessionUnknown, match=r"^no session x$"):
        a.get("x")
    assert [one.session_id for one in part.sessions()] == ["x"]
    assert a.of("") is a


async def test_tokens_are_counted_as_they_flow(memory: Any) -> None:
    ledger = Ledger(tokens=1000)
    a = TenantSessions(memory, "a", ledger)
    await a.create(SPEC, "s")
    async with aclosing(a.generate("s", "what now", OPTIONS)) as pieces:
        await anext(pieces)
        await anext(pieces)
        assert ledger.tokens == 998
    # Left before its end: the prompt is estimated, a token for four bytes of its JSON.
    assert ledger.tokens == 998 - len('"what now"') // 4
    before = ledger.tokens
    written = [piece async for piece in a.chat(ChatRequest((ChatMessage("user", "x"),)), OPTIONS)]
    assert before - ledger.tokens == written[-1].n_tokens == 4  # the fake's prompt is free
    before = ledger.tokens
    added = (await a.append("s", "one two three")).added_tokens
    assert before - ledger.tokens == added == 3


async def test_without_tokens_the_model_does_nothing(memory: Any) -> None:
    ledger = Ledger()
    a = TenantSessions(memory, "a", ledger)
    await a.create(SPEC, "s")
    ledger.tokens = 0
    errors = await calls(a, "s")
    refused = {name for name, error in errors.items() if isinstance(error, LimitReached)}
    assert refused >= {"generate", "append", "answer", "add_query"}
    with pytest.raises(LimitReached):
        async for _ in a.chat(ChatRequest((ChatMessage("user", "x"),)), OPTIONS):
            pass
    assert memory.prompts == [] and memory.generating == 0


@pytest.mark.parametrize("good", ["a", "-a", "binance:BTC-USDT:1m", "x@y.z_1", "0" * 128])
def test_session_ids(good: str) -> None:
    check_session_id(good)
    assert split_key(session_key("t", good)) == ("t", good)


@pytest.mark.parametrize(
    "bad", ["", "0" * 129, "a/b", "a b", "é", ":a", ".", "..", "a\n", "a\x1fb"]
)
def test_what_is_no_session_id(bad: str) -> None:
    with pytest.raises(RequestError, match="1 to 128 of A-Z"):
        check_session_id(bad)
