"""Faust's aiokafka transport, a partition batch at a time.

Stock Faust makes a message, an event and several tasks of every record. Here one
Faust message is one fetched batch of one partition (`Batch`), and its acknowledgement
covers the whole batch. Commits go by offsets.PartitionOffsets alone; the stock
`_new_offset`, `_add_gap` and acked lists are never used (they commit over unfinished
records).

At most IN_FLIGHT_MAX batches of a partition are handed out and not acknowledged. A
partition at its bound is not fetched from, so a slow owner holds back its own
partition and no other, and memory stays bounded (invariant 7). It stays this worker's: the
group hears of it as before, however long its engine has to do (`_note_poll`).

Use: `register()` once, then `BatchApp(name, broker="flashfeed://host:port", ...)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import faust
import faust.transport.drivers as faust_drivers
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from flashfeed.codecs.mapping import Source

from .fetched_record import FetchedRecord, unpack_lightly
from .group_member import carry_instance_id, group_error
from .offsets import PartitionOffsets

SCHEME = "flashfeed"
IN_FLIGHT_MAX = 16
# How long a fetch may wait when some partition is held back: its bound can be lifted
# any moment, and the wait in progress does not know.
HELD_BACK_POLL_S = 0.01
FETCH_WAIT_MS = 100


class Batch(NamedTuple):
    """Records of one fetch of one partition, in offset order; never empty."""

    topic: str
    partition: int
    epoch: int
    records: list[FetchedRecord]

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return int(self.records[0].offset)

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return int(self.records[-1].offset)


class Behind(NamedTuple):
    """How far a partition is behind its end: records, and Kafka's times (ms) of the oldest
    that is fetched and not done and of the newest that was ever fetched; 0 for none.
    `held_back`: it is at its bound, and not fetched from."""

    records: int
    oldest_ms: int
    newest_ms: int
    held_back: bool = False


def times_of(records: list[FetchedRecord]) -> tuple[int, int]:
    """Kafka's times of a batch's first and last record."""
    return records[0].timestamp or 0, records[-1].timestamp or 0


def source_of(raw: FetchedRecord) -> Source:
    """What a fetched record has beside its value."""
    return Source(raw.key, raw.topic, raw.timestamp, raw.headers)


class PromptConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, which reads what is committed alone (Faust does so only where
    it writes in transactions itself), with a fetch that does not wait 1.5 s for nothing.

    Faust fixes `fetch_max_wait_ms` at 1500. The embedded broker holds a fetch of several
    partitions for half of that even when records came in (measured: 722 ms, and 21 ms
    with 100); Apache Kafka answers at once either way.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        assert hasattr(consumer, "_fetch_max_wait_ms"), "aiokafka renamed its setting"
        assert hasattr(consumer, "_isolation_level"), "aiokafka renamed its setting"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        return consumer

    async def on_start(self) -> None:
        """Called when the thread starts; nothing is subscribed to yet."""
        await super().on_start()
        carry_instance_id(self._ensure_consumer())


class BatchConsumer(driver.Consumer):
    """Yields partition batches, and commits only what is contiguous and done."""

    def on_init(self) -> None:
        """Called by Faust's service machinery once, before start."""
        self.offsets: dict[TP, PartitionOffsets] = {}
        self._never_committed: set[TP] = set()

    def _new_consumer_thread(self) -> PromptConsumerThread:
        return PromptConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _partition(self, tp: TP) -> PartitionOffsets:
        return self.offsets.setdefault(tp, PartitionOffsets())

    # -- fetching -------------------------------------------------------------

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if not active_partitions:
            return {}
        free = {tp for tp in active_partitions if not self._held_back(tp)}
        if not free:
            await self.sleep(HELD_BACK_POLL_S)
            return {}
        if len(free) < len(active_partitions):
            timeout = HELD_BACK_POLL_S
        return await super()._getmany(free, timeout)

    def _held_back(self, tp: TP) -> bool:
        return len(self._partition(tp).in_flight) >= IN_FLIGHT_MAX

    def _note_poll(self) -> None:
        """Say that the application is alive, also where it fetches nothing. Who did not fetch
        for `max_poll_interval_s` leaves the group, and aiokafka (0.14) lets it come back with
        its next fetch only: an owner whose partitions are all held back, and a stand-by that
        has none, would both be gone."""
        with self._thread._ensure_consumer()._subscription.fetch_context():
            pass

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Fetch once, and yield one message for each partition that had records."""
        self._note_poll()
        fetched, active = await self._wait_next_records(timeout)
        if fetched is None or self.should_stop:
            return
        # Read behind the wait: a fetch that a rebalance overtook brings the new
        # assignment's records, and aiokafka has moved past them.
        generation = self.app.consumer_generation_id
        left = {TP(tp.topic, tp.partition): records for tp, records in fetched.items() if records}
        if not self.flow_active:
            with contextlib.suppress(IllegalStateError):  # overtaken: the next one seeks anew
                await self.perform_seek()
            await self._seek_back(left)
            return
        for tp in list(left):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                break
            if active is not None and tp not in active:
                continue
            records = left.pop(tp)
            partition = self._partition(tp)
            batch = Batch(tp.topic, tp.partition, partition.epoch, records)
            partition.fetched(batch.first, batch.last, *times_of(records))
            if (end := self.highwater(tp)) is not None:
                self.app.monitor.track_tp_end_offset(tp, end)
            yield tp, self._batch_message(tp, batch)
        await self._seek_back(left)

    async def _seek_back(self, unread: Mapping[TP, list[Any]]) -> None:
        """Make records that were fetched and not handed out be fetched again, where the
        partition is still ours and has moved past them."""
        for tp, records in unread.items():
            if tp not in self.assignment():
                continue
            first = int(records[0].offset)
            with contextlib.suppress(IllegalStateError):  # lost since
                position = await self.position(tp)
                if position is not None and position > first:
                    await self.seek(tp, first)

    def _batch_message(self, tp: TP, batch: Batch) -> ConsumerMessage:
        first = batch.records[0]
        return ConsumerMessage(
            batch.topic,
            batch.partition,
            batch.first,
            (first.timestamp or 0) / 1000.0,
            first.timestamp_type,
            [],
            None,
            batch,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Stock Faust would mark a batch's inner offsets as done on arrival."""

    # -- acknowledging and committing -----------------------------------------

    def ack(self, message: ConsumerMessage) -> bool:
        """Mark the message's whole batch as done."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        batch: Batch = message.value
        return self._partition(message.tp).done(batch.first, batch.epoch)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp for tp in list(self.offsets) if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        return self._partition(tp).committable

    # -- rebalancing ----------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was in flight: it is fetched again by whoever owns it next."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._partition(tp).restart()

    async def perform_seek(self) -> None:
        """Go back to the committed offsets; batches handed out before count no more.

        A partition that was never committed begins where `BatchApp.begins_at_end` says.
        The end is committed at once: a crash before the first commit would otherwise
        begin at a later end, and lose what came between.
        """
        for partition in self.offsets.values():
            partition.restart()
        await super().perform_seek()
        fresh = [
            tp
            for tp in self.assignment()
            if tp in self._never_committed and self.app.begins_at_end(tp.topic)
        ]
        if fresh:
            ends = {TP(*tp): end for tp, end in (await self.highwaters(*fresh)).items()}
            for tp, end in ends.items():
                await self.seek(tp, end)
            await self._commit(ends)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to the committed offsets, and note which partitions have none: Faust takes a
        committed 0, an empty partition's end, for none."""
        committed: Mapping[TP, int] = await super().seek_to_committed()
        self._never_committed = {
            TP(*tp) for tp, offset in committed.items() if offset is None or offset < 0
        }
        return committed

    def group_error(self) -> KafkaError | None:
        """What the group's coordinator refused for good; None where nothing."""
        client = self._thread._consumer
        return group_error(client) if client is not None else None

    def subscribed(self) -> set[str]:
        """The topics that the group's member has subscribed to."""
        return set(self._thread._ensure_consumer().subscription())

    # -- standing still (stall_watch.py) ----------------------------------------

    def highwater(self, tp: TP) -> int | None:
        """The partition's end as far as fetches told; None where they told nothing, or a rebalance
        is taking it away in the client's thread (aiokafka fails an assertion then, which would end
        the fetcher, and nothing would be read any more)."""
        state = self._client_state(tp)
        return state.highwater if state is not None else None

    def position_now(self, tp: TP) -> int | None:
        """The offset that is fetched next, as the client has it now; None where it has none.
        `position` would wait for one."""
        state = self._client_state(tp)
        return state.position if state is not None and state.has_valid_position else None

    def undone(self, tp: TP) -> int | None:
        """The first offset that is handed out and not done; None where there is none."""
        in_flight = self._partition(tp).in_flight
        return in_flight[0].first if in_flight else None

    async def fetch_anew(self, tp: TP, position: int | None) -> None:
        """Resume a partition, and drop what the client knows of it but where it stands. It
        does nothing where the partition stands elsewhere by now: nothing may come twice."""
        if tp in self.assignment():
            self.resume_partitions({tp})
        await self._thread.call_thread(self._fetch_anew, tp, position)

    async def _fetch_anew(self, tp: TP, position: int | None) -> None:
        # In the client's thread: it fetches nothing between the look and the seek.
        if self._client_state(tp) is None or self.position_now(tp) != position:
            return
        client, place = self._thread._ensure_consumer(), TopicPartition(*tp)
        client.resume(place)
        if position is not None:
            client.seek(place, position)

    def _client_state(self, tp: TP) -> Any:
        subscription = self._thread._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        return assignment.state_value(TopicPartition(*tp)) if assignment is not None else None

    def behind(self) -> Mapping[TP, Behind]:
        """How far each assigned partition is behind its end, as far as fetches told."""
        behind: dict[TP, Behind] = {}
        for tp in self.assignment():
            end, done = self.highwater(tp), self._done_to(tp)
            if end is not None and done is not None:
                partition = self._partition(tp)
                records = max(0, end - done)
                held_back = self._held_back(tp)
                behind[tp] = Behind(records, partition.oldest_ms, partition.newest_ms, held_back)
        return behind

    def _done_to(self, tp: TP) -> int | None:
        """The first offset that is not done; None where nothing is known yet. With nothing in
        flight it is where the client stands, not behind the last record: the end counts the
        markers of transactions, aborted records, and what was deleted before it was read."""
        undone = self.undone(tp)
        done = undone if undone is not None else self.position_now(tp)
        if done is None:
            done = self._partition(tp).committable
        return done if done is not None else self._committed_offset[tp]


class BatchApp(faust.App):
    """A Faust app over this transport.

    `begins_at_end` says of a topic whether a partition that this group never read
    begins at its end. The aiokafka setting cannot say it, since it holds for every
    topic alike, flashfeed's own among them, and also where an offset is out of range.
    """

    begins_at_end: Callable[[str], bool] = staticmethod(lambda _topic: False)

    def _create_directories(self) -> None:
        """Faust would make `<group>-data` where the process runs, for tables; there are none."""


class GrowingConductor(Conductor):
    """Faust's router of topics to agents, which can take in topics that come later."""

    # Stock Faust waits 45 s before it subscribes to a change, for agents that restart
    # in a loop; ours do not restart.
    _resubscribe_sleep_lock_seconds = 0.5

    def add_topics(self, feed: str, names: Iterable[str]) -> None:
        """Give the agent of a feed (a topic with `config={"feed": name}`) these topics
        too; the group rebalances. Idempotent, and to be repeated until `subscribed` has
        them: Faust forgets a change that comes in the middle of a rebalance."""
        for channel in self:
            if channel.config and channel.config.get("feed") == feed:
                fresh = [name for name in names if name not in channel.topics]
                channel.topics = [*channel.topics, *fresh]
        self._flag_changes()


class BatchTransport(driver.Transport):
    """The aiokafka driver with a consumer that yields batches."""

    Consumer: ClassVar[type[BatchConsumer]] = BatchConsumer
    Conductor: ClassVar[type[GrowingConductor]] = GrowingConductor
    driver_version = f"flashfeed over {driver.Transport.driver_version}"


def register() -> None:
    """Make `flashfeed://` a broker URL that Faust knows. Idempotent."""
    unpack_lightly()
    faust_drivers.TRANSPORTS.aliases[SCHEME] = f"{__name__}:BatchTransport"
