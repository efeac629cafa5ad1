"""Where a replay can go on: of each partition the first record that is not done with. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import TopicPartition


class Place(NamedTuple):
    """A record's place in Kafka."""

    topic: str
    partition: int
    offset: int


class Places:
    """What was read of each partition, and what of it is still on its way."""

    def __init__(self, begins: Mapping[TopicPartition, int]) -> None:
        self._next: dict[tuple[str, int], int] = {
            (one.topic, one.partition): offset for one, offset in begins.items()
        }
        self._held: dict[tuple[str, int], Counter[int]] = {}

    def read(self, place: Place) -> None:
        """The record was read."""
        at = (place.topic, place.partition)
        self._next[at] = max(self._next.get(at, 0), place.offset + 1)

    def hold(self, place: Place) -> None:
        """Something of the record is on its way; as often as it is held it is to be let go."""
        self._held.setdefault((place.topic, place.partition), Counter())[place.offset] += 1

    def let_go(self, places: Iterable[Place]) -> None:
        """These are done with."""
        for place in places:
            held = self._held[place.topic, place.partition]
            held[place.offset] -= 1
            if not held[place.offset]:
                del held[place.offset]

    def resume(self) -> list[Place]:
        """From where nothing is left out, of every partition."""
        return [
            Place(topic, partition, min([offset, *self._held.get((topic, partition), ())]))
            for (topic, partition), offset in sorted(self._next.items())
        ]
