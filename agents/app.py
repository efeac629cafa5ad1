"""The wiring: every topic and agent of a worker, no logic.

feeds' topics     ─► FeedAgent    ─┐
flashfeed.control ─► ControlAgent ─┴► flashfeed.records ─► Partitions ─► SessionOwner ─► outputs
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from flashfeed.codecs.codec import Outside
from flashfeed.engine import Engine
from flashfeed.models.config import Config
from flashfeed.models.errors import Denied, FlashfeedError
from flashfeed.models.event_format import EventEncoding
from flashfeed.models.probe_session import is_probe
from flashfeed.models.session import SessionSpec
from flashfeed.models.views import SessionEvent

from . import transport
from .auto_sessions import AutoSessions
from .broker_probe import BrokerProbe
from .claims import Claims
from .connection import broker_list, faust_credentials
from .control import ControlAgent, ControlRules
from .documents import Shelf
from .feeds import Feed, FeedAgent, FeedTopics
from .followed_topic import FollowedTopic, Take
from .group_member import instance_id, refusal
from .health import WorkerHealth
from .kafka_writer import KafkaWriter
from .learning import Learning
from .live import LiveSessions
from .metric_names import MetricNames
from .metrics import Metrics
from .own_topics import reply_topics
from .owners import Owners
from .partitions import Partitions, Settled
from .rights import denied
from .schema_registration import register_events
from .service import Peers
from .session_outputs import OutputTopics
from .session_owner import OwnerParts, SessionOwner
from .stall_watch import StallWatch
from .step_size import step_seconds
from .step_writer import KafkaStepWriter
from .stopping import STOP_MAX_S, Stopping
from .supplies import Supplies
from .topics import Topics, list_feed_topics, prepare_topics

if TYPE_CHECKING:
    from .tracing import Tracing

log = logging.getLogger(__name__)

WATCH_S = 0.5
DRAIN_MAX_S = 2.0
"""How long a rebalance, and a stop, wait for steps under way. Short: the group's other workers
wait as long, and a step that is abandoned is only work lost."""


class Worker:
    """One worker process: a Faust app, the sessions it owns, and their service. `tenants`
    are those whose names its metrics may show; `tracing` is None where nothing is followed."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        make_feeds: Callable[[Outside], list[Feed]],
        peers: Peers | None = None,
        tenants: Collection[str] = (),
        tracing: Tracing | None = None,
    ) -> None:
        self._config = config
        self._peers = peers
        self._tracing = tracing
        self._engine = engine
        self._writer = KafkaWriter(config.kafka, self.fail)
        self._steps = KafkaStepWriter(config.kafka, self._writer, self.fail)
        self._specs: dict[str, SessionSpec] = {
            name: template.spec() for name, template in config.templates.items()
        }
        self._metrics = Metrics(MetricNames.of(config, tenants), config.prices)
        self._supplies = Supplies(config, self._metrics)
        self._feeds = make_feeds(self._supplies.outside)
        self._feed_agents: list[FeedAgent] = []
        self._failed: asyncio.Future[None] | None = None
        self._app: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._owners = Owners(worker=uuid.uuid4().hex)
        self._shelf = Shelf()
        self._owners_topic = self._followed(config.topics.owners, self._owners.take)
        self._documents_topic = self._followed(config.topics.documents, self._shelf.take)
        self._encoding = EventEncoding(config.output.format)
        self._auto = AutoSessions(
            config.feeds,
            self._every_owner,
            self._writer,
            config.topics.records,
            self._metrics,
        )
        self._learning = (
            Learning(config, self._writer, self._metrics, self.fail) if config.learns else None
        )
        self.claims = Claims(self._owners, self._owners_topic, config.kafka.session_timeout_s)
        self.partitions = Partitions(
            config.kafka,
            config.topics.changelog,
            config.topics.dead_letters,
            self._writer,
            self.claims,
            self._steps,
            self._owner_parts,
        )
        self.service: LiveSessions | None = None
        self._probe = BrokerProbe(config.kafka)
        self._stalls: StallWatch | None = None
        self.health = WorkerHealth(
            engine,
            self.partitions,
            self._owners,
            self._probe,
            failure=self._failure,
            elsewhere=lambda: self.service is not None and self.service.ready,
            stalled=lambda: self._stalls.stalled() if self._stalls is not None else [],
        )

    def _followed(self, topic: str, take: Take) -> FollowedTopic:
        return FollowedTopic(self._config.kafka, topic, self._writer, take, self.fail)

    def _every_owner(self) -> list[SessionOwner]:
        return self.partitions.owners()

    def _owner_parts(self, settled: Settled, may_step: asyncio.Event) -> OwnerParts:
        topics = self._config.topics
        return OwnerParts(
            engine=self._engine,
            steps=self._steps,
            metrics=self._metrics,
            templates=self._specs.get,
            admit=self._auto.admit,
            queue_records_max=self._config.bridge.queue_records_max,
            step_s=step_seconds(self._config.engine.answer_deadline_ms),
            topics=OutputTopics(
                source=f"/flashfeed/{self._config.kafka.group}",
                changelog=topics.changelog,
                dead_letters=topics.dead_letters,
                flash_ready=topics.flash_ready,
                data_updated=topics.data_updated,
                answers=topics.answers,
                examples=topics.examples,
                outcomes=topics.outcomes,
                encoding=self._encoding,
            ),
            publish=self._publish,
            ended=self._ended,
            settled=settled,
            fatal=self.fail,
            may_step=may_step,
            tracing=self._tracing,
            heads=self._learning.heads.find if self._learning is not None else None,
        )

    async def start(self) -> LiveSessions:
        """Create topics, connect, join the group. Returns the service, maybe not ready yet:
        it takes partitions when `claims.announce` has said where its bridge is."""
        self._failed = asyncio.get_running_loop().create_future()
        topics = await prepare_topics(self._config)
        await self._writer.start(topics.bytes_max)
        await asyncio.gather(self._owners_topic.start(), self._documents_topic.start())
        if self._learning is not None:
            await self._learning.start()
        await self._supplies.start(self._writer, self.fail)
        if self._config.output.format != "json":
            client = self._supplies.registry_client()
            self._encoding.schema_ids |= await register_events(self._config, client)
        self.service = LiveSessions(
            self._config,
            self._engine,
            self._writer,
            self.partitions,
            await self._writer.partitions(self._config.topics.records),
            self._owners,
            (self._shelf, self._documents_topic),
            self._peers,
            self._metrics,
            self._tracing,
        )
        self._watch_metrics()
        self._app = self._faust_app(topics.existing)
        for feed in self._feeds:
            self._add_feed(feed, topics)
        if self._config.control.enabled:
            self._add_control()
        self._add_sessions()
        if self._learning is not None:
            self._learning.add_agents(self._app, self._guarded)
        kind = "idempotent" if self._writer.idempotent else "not idempotent (the broker cannot)"
        log.info("writes: %s; the producer is %s", self._steps.guarantee, kind)
        self._tasks.append(asyncio.create_task(self._watch_faust(), name="watch faust"))
        await self._joined(asyncio.create_task(self._app.start(), name="start faust"))
        await self._probe.start()
        self._stalls = StallWatch(self._app.consumer, self._config.kafka, self._metrics.registry)
        self._tasks += [
            asyncio.create_task(self._refresh_topics(), name="refresh topics"),
            asyncio.create_task(self._sweep(), name="end idle sessions"),
            asyncio.create_task(self._stalls.run(), name="look after the partitions"),
        ]
        return self.service

    async def _joined(self, starting: asyncio.Task[None]) -> None:
        """Wait until Faust has started; it would wait for ever where the group refuses us.
        Raises why."""
        assert self._failed is not None
        await asyncio.wait({starting, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            starting.cancel()
            self._failed.result()
        await starting

    def _watch_metrics(self) -> None:
        self._metrics.watch(
            lambda: sum(not is_probe(one.session_id) for one in self.partitions.live())
        )
        self._metrics.watch_engine(self._engine)
        self._metrics.kafka.behind = self._behind
        self._metrics.kafka.partitions = self.partitions.states
        self._metrics.kafka.queued = self._queued
        self._metrics.kafka.failures = self._writer.failures.copy

    async def drain(self) -> None:
        """Begin no step, and let those under way end, for DRAIN_MAX_S at most."""
        await self.partitions.drain(min(DRAIN_MAX_S, self._config.kafka.session_timeout_s / 2))

    async def stop(self, stopping: Stopping | None = None) -> None:
        """Finish the steps under way, save the sessions, hand the partitions over, flush and
        disconnect; within STOP_MAX_S where nothing is said of it."""
        stopping = stopping or Stopping(STOP_MAX_S)
        for task in self._tasks:
            task.cancel()
        await stopping.part("the steps under way", self.drain(), 2 * DRAIN_MAX_S)
        numbers = self.partitions.numbers
        await stopping.part("the sessions", self.partitions.stop(), 2.0)
        # The next owner's claim says it as well.
        await stopping.part("the partitions' claims", self.claims.give_back(numbers), 1.0)
        if self._app is not None:
            await stopping.part("the group's member", self._app.stop(), 3.0)
        if self._learning is not None:
            await stopping.part("learning", self._learning.stop(), 2.0)
        rest = [*self._feed_agents, self._probe, self._owners_topic, self._documents_topic]
        await stopping.part("the feeds and topics", _stop_all(*rest), 2.0)
        await stopping.part("the producer", _stop_all(self._supplies, self._writer), 2.0)
        await stopping.part(
            "the watches", asyncio.gather(*self._tasks, return_exceptions=True), 1.0
        )

    async def failed(self) -> None:
        """Wait until the worker cannot go on; raises why."""
        assert self._failed is not None
        await self._failed

    def fail(self, error: BaseException) -> None:
        """Stop the worker: what is not committed is done again by the next one."""
        if not isinstance(error, FlashfeedError) and (why := denied(error)):
            error = Denied(why)  # its traceback says nothing to who grants it
        told = isinstance(error, FlashfeedError)
        log.critical("the worker cannot go on: %s", error, exc_info=None if told else error)
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _failure(self) -> BaseException | None:
        failed = self._failed
        if failed is None or not failed.done() or failed.cancelled():
            return None
        return failed.exception()

    # -- Faust ----------------------------------------------------------------------

    def _faust_app(self, existing: Collection[str]) -> Any:
        kafka = self._config.kafka
        transport.register()
        hosts = ";".join(f"{transport.SCHEME}://{host}" for host in broker_list(kafka))
        app = transport.BatchApp(
            kafka.group,
            broker=hosts,
            broker_credentials=faust_credentials(kafka),
            broker_session_timeout=kafka.session_timeout_s,
            consumer_group_instance_id=instance_id(kafka),
            broker_heartbeat_interval=kafka.session_timeout_s / 4,
            broker_request_timeout=kafka.request_timeout_s,
            broker_max_poll_interval=kafka.max_poll_interval_s,
            broker_commit_interval=kafka.commit_interval_s,
            broker_max_poll_records=kafka.batch_records_max,
            # A topic that a feed names and that is not there yet is found by this alone.
            consumer_metadata_max_age_ms=int(kafka.topics_refresh_s * 1000),
            consumer_auto_offset_reset="earliest",
            value_serializer="raw",
            key_serializer="raw",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            table_standby_replicas=0,
        )
        # What comes while the worker runs is read from its beginning: nothing is older.
        topics = self._config.topics
        own = {topics.records, topics.control, topics.outcomes, topics.examples}
        past = set(existing) - own if kafka.start_at == "latest" else set()
        app.begins_at_end = past.__contains__
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        return app

    async def _on_assigned(self, _app: Any, assigned: Any, **_: Any) -> None:
        self._metrics.rebalanced()
        records = self._config.topics.records
        if self._learning is not None:
            self._learning.assign(assigned)
        await self.partitions.assign(tp.partition for tp in assigned if tp.topic == records)

    async def _on_revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        await self.drain()
        with contextlib.suppress(TimeoutError):  # else it is read again, and skipped
            async with asyncio.timeout(DRAIN_MAX_S):
                await app.consumer.commit()
        for agent in self._feed_agents:
            await agent.revoke([(tp.topic, tp.partition) for tp in revoked])

    async def _watch_faust(self) -> None:
        """Stop the worker where Faust's own services or the engine's thread crashed, or the
        group refuses it: they end in silence, and the worker would live on and do nothing."""
        consumer = self._app.consumer
        while True:
            refused = consumer.group_error()
            if self._app.crashed or consumer.crashed or self._engine.failure or refused:
                break
            await asyncio.sleep(WATCH_S)
        reason = self._engine.failure or self._app.crash_reason or consumer.crash_reason or refused
        self.fail(refusal(reason or RuntimeError("Faust's consumer ended"), self._config.kafka))

    def _add_feed(self, feed: Feed, found: Topics) -> None:
        topics = found.feeds[feed.name]
        carrier = FeedAgent(
            feed,
            self._writer,
            self._supplies,
            FeedTopics(self._config.topics.records, self._config.topics.dead_letters),
            self._metrics,
            self.fail,
            self._tracing,
        )
        self._feed_agents.append(carrier)

        async def read_feed(batches: Any) -> None:
            async for event in batches.noack().events():
                if not await self._guarded(carrier.take, event.value, event.ack):
                    return

        where = {"feed": feed.name}
        if not topics:
            patterns = self._patterns(feed)
            log.warning("feed %s: no topic matches %s yet", feed.name, patterns, extra=where)
        for topic in topics:
            if topic not in found.existing:
                log.warning("feed %s: there is no topic %s yet", feed.name, topic, extra=where)
        reads = ", ".join(topics) or "nothing yet"
        log.info("feed %s reads %s", feed.name, reads, extra=where)
        channel = self._app.topic(*topics, config={"feed": feed.name})
        self._app.agent(channel, name=f"feed-{feed.name}")(read_feed)

    def _patterns(self, feed: Feed) -> str:
        return ", ".join(self._config.feeds[feed.name].topics)

    async def _refresh_topics(self) -> None:
        """Take in topics that come to match a feed's patterns while the worker runs."""
        while True:
            await asyncio.sleep(self._config.kafka.topics_refresh_s)
            try:
                now = await list_feed_topics(self._config)
            except Exception as error:  # the brokers are away: the next round asks again
                log.warning("cannot list the topics: %s", error)
                continue
            for feed in self._feeds:
                subscribed = self._app.consumer.subscribed()
                fresh = [topic for topic in now[feed.name] if topic not in subscribed]
                if fresh:
                    where = {"feed": feed.name}
                    log.info("feed %s reads %s too", feed.name, ", ".join(fresh), extra=where)
                    self._app.topics.add_topics(feed.name, fresh)

    def _add_control(self) -> None:
        topics = self._config.topics
        rules = ControlRules(
            frozenset(reply_topics(self._config)),
            self._specs.get,
            self._config.engine.context_tokens,
        )
        carrier = ControlAgent(
            rules, self._writer, topics.records, topics.dead_letters, self._metrics
        )

        async def read_control(batches: Any) -> None:
            async for event in batches.noack().events():
                if not await self._guarded(carrier.take, event.value, event.ack):
                    return

        self._app.agent(self._app.topic(topics.control), name="control")(read_control)

    def _add_sessions(self) -> None:
        async def apply_records(batches: Any) -> None:
            async for event in batches.noack().events():
                if not await self._guarded(self.partitions.take, event.value, event.ack):
                    return

        topic = self._app.topic(self._config.topics.records)
        self._app.agent(topic, name="sessions")(apply_records)

    async def _guarded(self, take: Callable[..., Any], *args: Any) -> bool:
        """Run an agent's body; what it raises stops the worker, unacknowledged."""
        try:
            await take(*args)
        except Exception as error:
            self.fail(error)
            return False
        return True

    def _publish(self, event: SessionEvent) -> None:
        if self.service is not None:
            self.service.publish(event)

    def _ended(self, session_id: str) -> None:
        if self.service is not None:
            self.service.ended(session_id)

    async def _sweep(self) -> None:
        await self._guarded(self._auto.sweep)

    def _queued(self) -> int:
        return sum(owner.queued for owner in self.partitions.owners())

    def _behind(self) -> dict[tuple[str, int], transport.Behind]:
        consumer = self._app.consumer if self._app is not None else None
        if consumer is None:
            return {}
        return {(tp.topic, tp.partition): one for tp, one in consumer.behind().items()}


async def _stop_all(*parts: Any) -> None:
    for part in parts:
        await part.stop()
