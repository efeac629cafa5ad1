"""A position is saved after the event, never before; a damaged one says so."""

import pytest

from flashfeed.client.errors import MalformedPosition
from flashfeed.client.position import SAVE_AFTER_PASSED, Position, PositionFile, Progress


class Kept:
    def __init__(self, position=None):
        self.saved = [position] if position else []

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, position):
        self.saved.append(position)


def test_what_is_delivered_is_saved_when_it_is_handled():
    store = Kept()
    progress = Progress(store, 10)
    progress.deliver("e1", "t/0", 4)
    assert store.saved == []
    assert progress.is_new("e1")
    progress.handled()
    progress.handled()
    assert store.saved == [Position({"t/0": 5}, ("e1",))]
    assert not Progress(store, 10).is_new("e1")


def test_ids_are_bounded_and_the_oldest_go_first():
    progress = Progress(None, 2)
    for one in ("a", "b", "a", "c"):
        progress.know(one)
    assert [progress.is_new(one) for one in "abc"] == [False, True, False]


def test_a_reader_that_wants_little_saves_its_way_all_the_same():
    store = Kept()
    progress = Progress(store, 2)
    for offset in range(SAVE_AFTER_PASSED):
        progress.passed("t/0", offset)
    assert store.saved == [Position({"t/0": SAVE_AFTER_PASSED})]


def test_a_file_reads_back(tmp_path):
    file = PositionFile(tmp_path / "here.json")
    assert file.load() is None
    file.save(Position({"t/0": 5}, ("e1",)))
    assert file.load() == Position({"t/0": 5}, ("e1",))
    assert [path.name for path in tmp_path.iterdir()] == ["here.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"offsets":{"t/0":"x"}}', b"\xff"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "here.json"
    path.write_bytes(content)
    with pytest.raises(MalformedPosition, match=r"here\.json: expected a position"):
        PositionFile(path).load()
