"""The wiring of learning, where the configuration has it: topics, agents, learner.

flashfeed.outcomes ─► OutcomeAgent ─► flashfeed.records ─► SessionOwner ─► flashfeed.examples
flashfeed.examples ─► Learner ─► flashfeed.heads ─► LearnedHeads ─► SessionOwner's answers
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from flashfeed.models.config import Config
from flashfeed.models.errors import Unavailable

from .followed_topic import FollowedTopic
from .kafka_writer import KafkaWriter
from .learned_heads import LearnedHeads
from .learner import Learner
from .metrics import Metrics
from .outcomes import OutcomeAgent

log = logging.getLogger(__name__)

HEADS_MAX_S = 5.0

Guarded = Callable[..., Awaitable[bool]]


class Learning:
    """What one worker has for questions that learn. `heads` are those of all workers."""

    def __init__(
        self,
        config: Config,
        writer: KafkaWriter,
        metrics: Metrics,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._topics = config.topics
        self.heads = LearnedHeads()
        self._followed = FollowedTopic(
            config.kafka, config.topics.heads, writer, self.heads.take, fatal
        )
        self._outcomes = OutcomeAgent(
            writer, config.topics.records, config.topics.dead_letters, metrics
        )
        self._learner = Learner(config, writer, self.heads, self._followed, metrics, fatal)
        metrics.learning.heads = self._learner.scores

    async def start(self) -> None:
        """Read the heads that are there, and go on reading. A learner that was killed may have left
        a transaction open, and what lies behind it cannot be read until its partition has an
        owner again, this worker perhaps: nobody waits for that."""
        try:
            await self._followed.start(HEADS_MAX_S)
        except Unavailable as error:
            log.warning("the newest heads are not read yet, and answer later: %s", error)

    async def stop(self) -> None:
        """Let go of what is learnt here, and stop reading."""
        await self._learner.stop()
        await self._followed.stop()

    def add_agents(self, app: Any, guarded: Guarded) -> None:
        """The agents of the outcomes and of the examples."""

        async def read_outcomes(batches: Any) -> None:
            async for event in batches.noack().events():
                if not await guarded(self._outcomes.take, event.value, event.ack):
                    return

        async def learn_examples(batches: Any) -> None:
            async for event in batches.noack().events():
                if not await guarded(self._learner.take, event.value, event.ack):
                    return

        app.agent(app.topic(self._topics.outcomes), name="outcomes")(read_outcomes)
        app.agent(app.topic(self._topics.examples), name="learner")(learn_examples)

    def assign(self, assigned: Iterable[Any]) -> None:
        """The group gave this worker its partitions anew."""
        examples = self._topics.examples
        self._learner.assign([tp.partition for tp in assigned if tp.topic == examples])
