"""The session service over an owner in memory: what a generation leaves, and answers that
leave nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from flashfeed.agents.documents import MemoryDocuments, Shelf
from flashfeed.agents.history import History
from flashfeed.agents.kafka_writer import Write, Written
from flashfeed.agents.live import LiveSessions
from flashfeed.agents.owners import Owners
from flashfeed.agents.session_step import Waiting
from flashfeed.models.config import Config
from flashfeed.models.errors import (
    ContextFull,
    RequestError,
    SessionFailed,
    SessionUnknown,
    Unavailable,
)
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.messages import Append, Delete, decode_message
from flashfeed.models.ownership import Owner, encode_owner

from session_bench import Bench
from session_steps import lines, reading, spec_of

KEEP = GenerateOptions(clear_after=False)


class Partitions:
    """One partition, all of whose sessions are the bench's one."""

    numbers = (0,)
    ready = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def on_settled(self, listener: Any) -> None:
        self._bench.listener = listener

    def on_revoked(self, listener: Any) -> None:
        pass

    def find(self, number: int, session_id: str) -> Any:
        return self._bench.owner if session_id == "s" else None

    def serves(self, number: int, epoch: int) -> bool:
        return (number, epoch) == (0, 1)

    def live(self) -> list[Any]:
        return [self._bench.owner]


class Writer:
    """Kafka, as far as one session goes: what is written comes to its owner."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._offset = 100

    async def write(self, writes: Iterable[Write]) -> list[Written]:
        places = []
        for one in writes:
            self._offset += 1
            self._bench.owner.put(Waiting(self._offset, decode_message(one.value)))
            places.append(Written(0, self._offset))
        return places


async def served(bench: Bench) -> LiveSessions:
    writer: Any = Writer(bench)
    partitions: Any = Partitions(bench)
    engine: Any = bench.engine
    owners, documents = Owners("here"), MemoryDocuments()
    owners.take(b"0", encode_owner(Owner(0, 1, "here", "", live=True)))
    service = LiveSessions(
        Config(),
        engine,
        writer,
        partitions,
        1,
        owners,
        (Shelf(), documents),
        None,
        bench.metrics,
    )
    await bench.apply(reading(0, 1, 2))
    return service


async def said(service: LiveSessions, prompt: str, options: GenerateOptions) -> list[str]:
    return [piece.text async for piece in service.generate("s", prompt, options)]


async def test_a_generation_leaves_nothing_unless_it_is_told_to() -> None:
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    held = lines(bench.owner.state)
    assert await said(service, "Trend?", GenerateOptions()) == [" It", " rises", ". "]
    assert lines(bench.owner.state) == held
    assert service.get("s").version == 1


async def test_a_kept_generation_is_an_item_when_its_last_piece_comes() -> None:
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    seen = []
    async for piece in service.generate("s", " Trend? ", KEEP):
        seen.append((piece.text, piece.finish_reason, lines(bench.owner.state)[2:]))
    kept = "Q: Trend?\nA: It rises."
    assert seen == [(" It", None, []), (" rises", None, []), (". ", "stop", [kept])]
    bench.assert_agreed()  # in the engine and the changelog too
    assert service.get("s").version == 2
    assert service.get("s").data_count == 2  # it is no record


@pytest.mark.parametrize(("reason", "stays"), [("length", True), ("cancelled", False)])
async def test_a_generation_that_was_cancelled_leaves_nothing(reason: Any, stays: bool) -> None:
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    bench.engine.finish_reason = reason
    await said(service, "", KEEP)
    assert lines(bench.owner.state)[2:] == (["A: It rises."] if stays else [])


async def test_a_reader_that_goes_away_leaves_nothing() -> None:
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    pieces: Any = service.generate("s", "Trend?", KEEP)
    async for _ in pieces:
        break
    await pieces.aclose()
    assert len(lines(bench.owner.state)) == 2
    assert not service.get("s").in_use


async def test_a_generation_that_cannot_stay_says_so() -> None:
    bench = Bench(spec_of("grow", 4), room=30)
    service = await served(bench)
    bench.engine.pieces = ("x" * 40,)
    with pytest.raises(ContextFull):
        await said(service, "Trend?", KEEP)
    await bench.apply(reading(200, *range(20), at=50))
    assert service.get("s").failed
    with pytest.raises(SessionFailed, match="keeps nothing more"):
        await said(service, "Trend?", KEEP)
    assert await said(service, "Trend?", GenerateOptions())


async def test_an_answer_among_choices_changes_nothing() -> None:
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    before = service.get("s")
    answer = await service.answer("s", "Rising?", ["yes", "no"], gap_threshold=1.0)
    assert answer is not None
    assert await service.answer("s", "Rising?", ["yes", "no"], gap_threshold=1.1) is None
    assert (answer.value, answer.confidence, answer.logit_gap) == ("yes", 0.75, 1.0)
    assert answer.raw is None
    after = service.get("s")
    assert (after.version, after.answers, after.n_tokens) == (
        before.version,
        before.answers,
        before.n_tokens,
    )
    bench.assert_agreed()


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("?", []), ("?", ["one"]), ("?", ["a", "a"]), ("?", ["a", ""]), ("", ["a", "b"])],
)
async def test_choices_that_are_none_are_refused(prompt: str, choices: list[str]) -> None:
    service = await served(Bench(spec_of("exact", 4)))
    with pytest.raises(RequestError):
        await service.answer("s", prompt, choices)


async def test_an_unknown_session_has_no_answer() -> None:
    service = await served(Bench(spec_of("exact", 4)))
    with pytest.raises(SessionUnknown):
        await service.answer("nobody", "?", ["a", "b"])


async def test_while_the_window_is_made_anew_the_session_is_unavailable_not_unknown() -> None:
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    await bench.engine.close("s")
    with pytest.raises(Unavailable):
        await service.answer("s", "?", ["a", "b"])
    with pytest.raises(Unavailable):
        await said(service, "?", GenerateOptions())


async def test_an_append_counts_its_own_tokens_whatever_slides_out() -> None:
    bench = Bench(spec_of("exact", 1))
    service = await served(bench)
    ack = await service.append("s", "one two three")
    assert ack.added_tokens == 3
    assert lines(bench.owner.state) == ["one two three"]


async def test_who_listens_hears_the_end_whoever_wrote_it() -> None:
    """A delete that came too late for its caller, or from another producer, is one too."""
    bench = Bench(spec_of("exact", 4))
    service = await served(bench)
    async with service.events("s") as events:
        await bench.apply(Waiting(1, Delete()))
        assert bench.ended == ["s"]
        for session_id in bench.ended:
            service.ended(session_id)
        async with asyncio.timeout(1):
            assert [event async for event in events] == []


async def test_a_push_whose_partition_goes_meanwhile_does_not_wait_for_ever() -> None:
    """Its queue would be too long for as long as the worker lives."""

    class Moving:
        async def write(self, writes: Iterable[Write]) -> list[Written]:
            history.revoked(0)
            return [Written(0, 7) for _ in writes]

    writer: Any = Moving()
    history = History(writer, "records", 1)
    await history.push("s", Append(text="x"), 1)
    assert history.on_the_way("s", set()) == (0, 0)
