"""Who owns a partition: every reader of the same claims knows the same owner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.claims import Claims
from flashfeed.agents.followed_topic import FollowedTopic
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.key_partition import partition_of
from flashfeed.agents.owners import Owners
from flashfeed.agents.placement import Placement
from flashfeed.agents.service import NOTED, Noted
from flashfeed.agents.topics import prepare_topics
from flashfeed.models.config import Config, KafkaConfig, TopicsConfig
from flashfeed.models.errors import SessionElsewhere, Unavailable
from flashfeed.models.ownership import Owner, encode_owner


def told(owners: Owners, number: int, epoch: int, worker: str, *, live: bool = True) -> None:
    owner = Owner(number, epoch, worker, f"http://{worker}", live)
    owners.take(str(number).encode(), encode_owner(owner))


def test_the_higher_epoch_counts_and_of_two_alike_the_first() -> None:
    owners = Owners("a")
    told(owners, 0, 1, "a", live=False)
    assert owners.holds(0, 1)
    assert owners.live() == []
    told(owners, 0, 1, "b")  # claimed at the same time, and came second
    assert owners.holds(0, 1)
    told(owners, 0, 1, "a")
    assert [one.worker for one in owners.live()] == ["a"]
    told(owners, 0, 3, "b", live=False)
    told(owners, 0, 2, "a")  # a worker that does not know yet
    assert not owners.holds(0, 1)
    assert owners.epoch(0) == 3
    assert owners.live() == []


def test_what_is_no_owner_is_left_out() -> None:
    owners = Owners("a")
    told(owners, 0, 1, "a")
    for key, value in ((b"x", b"{}"), (b"0", b"{garbage"), (b"0", b'{"epoch": "high"}')):
        owners.take(key, value)
    assert owners.holds(0, 1)
    owners.take(b"0", None)
    assert owners.of(0) is None


Said = st.tuples(st.integers(1, 4), st.sampled_from("abc"), st.booleans())


@given(said=st.lists(Said, max_size=20))
def test_an_owner_never_goes_back_to_an_earlier_epoch(said: list[tuple[int, str, bool]]) -> None:
    owners, highest = Owners("a"), 0
    for epoch, worker, live in said:
        before = owners.of(0)
        told(owners, 0, epoch, worker, live=live)
        assert owners.epoch(0) == max(highest, epoch)
        if epoch == highest and before is not None:
            after = owners.of(0)
            assert after is not None
            assert after.worker == before.worker
        highest = owners.epoch(0)


class Partitions:
    """The partitions of this worker, each of some epoch, live."""

    def __init__(self, **epochs: int) -> None:
        self.epochs = {int(name[1:]): epoch for name, epoch in epochs.items()}

    @property
    def numbers(self) -> list[int]:
        return sorted(self.epochs)

    def serves(self, number: int, epoch: int) -> bool:
        return self.epochs.get(number) == epoch


def placed(owners: Owners, count: int = 2, *, passes_on: bool = True, **epochs: int) -> Placement:
    partitions: Any = Partitions(**epochs)
    return Placement(owners, partitions, count, passes_on=passes_on)


def name_in(number: int, count: int = 2) -> str:
    return next(f"s{n}" for n in range(99) if partition_of(f"s{n}", count) == number)


def test_a_session_is_here_elsewhere_or_on_its_way() -> None:
    owners = Owners("a")
    placement = placed(owners, p0=5)
    with pytest.raises(Unavailable, match="taken over"):
        placement.here(name_in(0))
    told(owners, 0, 5, "a")
    told(owners, 1, 2, "b")
    assert placement.here(name_in(0)) == 0
    with pytest.raises(SessionElsewhere) as elsewhere:
        placement.here(name_in(1))
    assert elsewhere.value.owner == Owner(1, 2, "b", "http://b", live=True)
    assert "http" not in str(elsewhere.value)
    told(owners, 1, 3, "c", live=False)
    with pytest.raises(Unavailable, match="taken over"):
        placement.here(name_in(1))


def test_a_worker_that_lost_a_partition_unheard_does_not_answer_for_it() -> None:
    owners = Owners("a")
    placement = placed(owners, p0=5)
    told(owners, 0, 5, "a")
    told(owners, 0, 6, "b", live=False)
    with pytest.raises(Unavailable):
        placement.here(name_in(0))
    with pytest.raises(Unavailable):
        placement.accept(0, 5)
    told(owners, 0, 6, "b")
    with pytest.raises(SessionElsewhere):
        placement.here(name_in(0))


@pytest.mark.parametrize(("partition", "epoch"), [(0, 4), (0, 6), (1, 5), (7, 1)])
def test_what_is_passed_on_for_another_epoch_is_refused(partition: int, epoch: int) -> None:
    owners = Owners("a")
    told(owners, 0, 5, "a")
    told(owners, 1, 5, "b")
    placement = placed(owners, p0=5)
    placement.accept(0, 5)
    with pytest.raises(Unavailable):
        placement.accept(partition, epoch)


def test_where_it_is_noted_for_who_passes_requests_on() -> None:
    owners = Owners("a")
    told(owners, 1, 2, "b")
    noted = Noted()
    token = NOTED.set(noted)
    try:
        with pytest.raises(SessionElsewhere) as elsewhere:
            placed(owners).here(name_in(1))
    finally:
        NOTED.reset(token)
    assert noted.elsewhere is elsewhere.value


def test_without_a_way_to_pass_on_the_refusal_says_what_to_do() -> None:
    owners = Owners("a")
    told(owners, 1, 2, "b")
    with pytest.raises(Unavailable, match=r"\[cluster\] secret_env or secret_file") as refused:
        placed(owners, passes_on=False).here(name_in(1))
    assert not isinstance(refused.value, SessionElsewhere)
    owners.take(b"1", encode_owner(Owner(1, 3, "b", "", live=True)))
    with pytest.raises(Unavailable, match="has no bridge"):
        placed(owners).here(name_in(1))


def test_new_ids_are_of_a_partition_that_is_served_here() -> None:
    owners = Owners("a")
    told(owners, 0, 5, "a")
    told(owners, 1, 2, "b")
    placement = placed(owners, p0=5, p1=1)
    assert {partition_of(placement.new_id("t/"), 2) for _ in range(20)} == {0}
    assert placement.new_id("t/").startswith("t/")
    with pytest.raises(SessionElsewhere):  # more workers than partitions
        placed(owners).new_id()
    with pytest.raises(Unavailable):
        placed(Owners("a")).new_id()


def test_a_worker_is_ready_when_it_serves_what_it_owns() -> None:
    owners = Owners("a")
    told(owners, 0, 5, "a")
    assert placed(owners, p0=5).ready
    assert not placed(owners, p0=5, p1=1).ready
    assert not placed(owners).ready, "nobody serves partition 1"
    told(owners, 1, 2, "b")
    assert placed(owners).ready
    assert not placed(owners, passes_on=False).ready


async def test_who_waits_for_a_move_is_told() -> None:
    owners = Owners("a")
    told(owners, 0, 5, "b", live=False)
    waiting = asyncio.create_task(owners.moved(0, 5))
    await asyncio.sleep(0)
    told(owners, 0, 5, "b")
    told(owners, 1, 9, "b")
    await asyncio.sleep(0.01)
    assert not waiting.done()
    told(owners, 0, 6, "c", live=False)
    await asyncio.wait_for(waiting, 1)


class Workers:
    """Two workers' claims over one broker."""

    def __init__(self, brokers: str, topic: str) -> None:
        topics = TopicsConfig(owners=topic)
        self.config = Config(kafka=KafkaConfig(brokers=brokers), topics=topics)
        self.writer = KafkaWriter(self.config.kafka, self.failed)
        self.owners = [Owners("a"), Owners("b")]
        self.topics = [
            FollowedTopic(self.config.kafka, topic, self.writer, one.take, self.failed)
            for one in self.owners
        ]
        self.claims = [
            Claims(owners, followed, retry_s=0.3)
            for owners, followed in zip(self.owners, self.topics, strict=True)
        ]

    def failed(self, error: BaseException) -> None:
        raise error

    async def __aenter__(self) -> Workers:
        await prepare_topics(self.config)
        await self.writer.start()
        for place, topic in enumerate(self.topics):
            await topic.start()
            self.claims[place].announce(f"http://{place}")
        return self

    async def __aexit__(self, *_: object) -> None:
        for topic in self.topics:
            await topic.stop()
        await self.writer.stop()


@pytest.mark.broker
async def test_a_handover_is_known_to_both(broker: str) -> None:
    async with Workers(broker, "handover.owners") as workers:
        first, second = workers.claims
        assert await first.claim(0) == 1
        assert workers.owners[0].live() == []
        await first.open(0, 1)
        await second.sync()
        assert [one.url for one in workers.owners[1].live()] == ["http://0"]
        assert await second.claim(0) == 2
        assert not workers.owners[1].holds(0, 1)
        await first.sync()
        assert not first.holds(0, 1)
        assert workers.owners[0].of(0) == workers.owners[1].of(0)
        await first.give_back([0])  # it is not its own to give any more
        await second.open(0, 2)
        await first.sync()
        assert [one.url for one in workers.owners[0].live()] == ["http://1"]
        await second.give_back([0])
        await first.sync()
        assert workers.owners[0].live() == []


@pytest.mark.broker
async def test_of_two_that_claim_at_once_each_knows_who_won(broker: str) -> None:
    async with Workers(broker, "race.owners") as workers:
        claims = [asyncio.create_task(one.claim(0)) for one in workers.claims]
        epochs = sorted(await asyncio.gather(*claims))
        assert epochs == [1, 2]  # the second waited, and claimed it anew
        await asyncio.gather(*(one.sync() for one in workers.claims))
        assert workers.owners[0].of(0) == workers.owners[1].of(0)


@pytest.mark.broker
async def test_a_worker_that_starts_later_knows_everything_before(broker: str) -> None:
    async with Workers(broker, "later.owners") as workers:
        for number in range(4):
            await workers.claims[number % 2].open(
                number, await workers.claims[number % 2].claim(number)
            )
        late = Owners("late")
        topic = FollowedTopic(
            workers.config.kafka, "later.owners", workers.writer, late.take, workers.failed
        )
        await topic.start()
        await topic.stop()
        assert [one.worker for one in late.live()] == ["a", "b", "a", "b"]
