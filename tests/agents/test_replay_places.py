"""A replay that is interrupted goes on where nothing is left out."""

from __future__ import annotations

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.replay_places import Place, Places

PARTITIONS = (0, 1)
steps = st.lists(st.tuples(st.sampled_from(PARTITIONS), st.integers(0, 2)), max_size=40)


def test_before_anything_is_read_it_goes_on_where_it_began() -> None:
    places = Places({TopicPartition("t", 1): 7, TopicPartition("t", 0): 3})
    assert places.resume() == [Place("t", 0, 3), Place("t", 1, 7)]


@given(steps, st.randoms())
def test_every_partition_goes_on_at_its_first_record_that_is_not_done(
    read: list[tuple[int, int]], order: object
) -> None:
    """Records of two partitions, each with none to two parts on its way; parts end anyhow."""
    places = Places({TopicPartition("t", number): 0 for number in PARTITIONS})
    offsets = dict.fromkeys(PARTITIONS, 0)
    held: list[Place] = []
    for number, parts in read:
        place = Place("t", number, offsets[number])
        offsets[number] += 1
        places.read(place)
        for _ in range(parts):
            places.hold(place)
            held.append(place)
    order.shuffle(held)  # type: ignore[attr-defined]
    while True:
        for place in places.resume():
            left = [one.offset for one in held if one.partition == place.partition]
            assert place.offset == min([offsets[place.partition], *left])
        if not held:
            return
        places.let_go([held.pop()])
