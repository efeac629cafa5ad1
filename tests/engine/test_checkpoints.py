"""Which copies a sequence goes back to: pure, over a dictionary in llama.cpp's place."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from flashfeed.engine.checkpoints import KEPT, Checkpoints

_N = 3
_IDS = range(_N, _N + KEPT * _N)


class Held:
    """What the sequences hold: only whole ones are copied, into empty ones, or emptied."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = dict.fromkeys(range(_IDS.stop), "")

    def copy(self, source: int, targets: Sequence[int], position: int) -> None:
        for target in targets:
            assert self.texts[target] == ""
            assert len(self.texts[source]) == position
            self.texts[target] = self.texts[source]

    def empty(self, sequences: Sequence[int]) -> None:
        for one in sequences:
            self.texts[one] = ""


_operations = st.lists(
    st.tuples(
        st.sampled_from(("write", "commit", "back", "back", "drop")),
        st.integers(0, _N - 1),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(_operations)
def test_a_sequence_goes_back_to_what_it_was(operations: list[tuple[str, int, int]]) -> None:
    held = Held()
    checkpoints = Checkpoints(_IDS, held.copy, held.empty)
    was: dict[int, dict[int, str]] = {one: {} for one in range(_N)}
    for count, (what, one, n) in enumerate(operations):
        if what == "write":
            held.texts[one] += chr(97 + count % 26) * n
        elif what == "commit":
            checkpoints.commit(one, len(held.texts[one]), min(KEPT, 1 + n))
            was[one][len(held.texts[one])] = held.texts[one]
        elif what == "drop":
            held.empty((one,))
            checkpoints.drop(one)
        else:
            places = (0, *checkpoints.positions(one))
            place = places[n % len(places)]
            checkpoints.go_back(one, place)
            assert held.texts[one] == (was[one][place] if place else "")
        places = checkpoints.positions(one)
        assert list(places) == sorted(places)
        assert len(places) <= KEPT
        kept = {checkpoints.at(two, end) for two in range(_N) for end in checkpoints.positions(two)}
        # Nobody else's copy, none twice, and none of what nobody goes back to.
        assert {copy for copy in _IDS if held.texts[copy]} == kept
        assert len(kept) == sum(len(checkpoints.positions(two)) for two in range(_N))


def test_the_last_commit_and_the_one_before_are_kept() -> None:
    held = Held()
    checkpoints = Checkpoints(_IDS, held.copy, held.empty)
    for text in ("a", "abc", "abcd", "abcdef"):
        held.texts[0] = text
        checkpoints.commit(0, len(text))
    assert checkpoints.positions(0) == (4, 6)
    checkpoints.go_back(0, 4)
    assert held.texts[0] == "abcd"
    assert checkpoints.positions(0) == (4,)
    checkpoints.forget()
    assert checkpoints.positions(0) == ()
