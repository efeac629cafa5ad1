"""The folder: what is saved is found again, what was altered is refused, the bound holds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashfeed.engine import EngineSettings, snapshot_store
from flashfeed.engine.context import LLAMA_BUILD, Context
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, PlanFault, Run, cut
from flashfeed.engine.replay import read_trace, replay
from flashfeed.engine.snapshot_file import CHUNK_BYTES, SnapshotIdentity, SnapshotRefused
from flashfeed.engine.snapshot_secret import snapshot_secret
from flashfeed.engine.snapshot_store import SnapshotNotSaved, SnapshotStore, State
from flashfeed.engine.trace import Trace
from flashfeed.models.errors import ConfigError, EngineError

SECRET = b"0123456789abcdef0123456789abcdef"
SENIOR, JUNIOR = (5, 6, 7), (6, 7)
# One state over a chunk's end, one of part of a chunk.
STATES = {"senior": bytes(range(256)) * 4097, "junior": b"the junior's"}
assert len(STATES["senior"]) > CHUNK_BYTES


def identity(session_id: str = "AAPL", tenant: str = "acme") -> SnapshotIdentity:
    return SnapshotIdentity(
        tenant=tenant,
        session_id=session_id,
        model_hash="m",
        spec_hash="s",
        engine=LLAMA_BUILD,
        type_k=1,
        type_v=1,
        flash_attention=False,
    )


def save(store: SnapshotStore, who: SnapshotIdentity | None = None, size: int = 0) -> Path:
    """A snapshot of the two states, or of one of `size` bytes; its path."""
    states = [
        State("senior", SENIOR, memoryview(STATES["senior"])),
        State("junior", JUNIOR, memoryview(STATES["junior"])),
    ]
    if size:
        states = [State("senior", SENIOR, memoryview(bytes(size)))]
    store.save(who or identity(), states, count=9, start=4, now_ms=17)
    who = who or identity()
    return store._path(who.tenant, who.session_id)


def load(store: SnapshotStore, who: SnapshotIdentity | None = None) -> dict[str, bytes] | None:
    with store.open(who or identity()) as stored:
        if stored is None:
            return None
        states = stored.read({"senior": SENIOR, "junior": JUNIOR})
        return {name: bytes(state) for name, state in states.items()}


def refusal(store: SnapshotStore, who: SnapshotIdentity | None = None) -> str:
    with pytest.raises(SnapshotRefused) as refused:
        load(store, who)
    return refused.value.reason


def held(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def store(folder: Path) -> SnapshotStore:
    return SnapshotStore(folder, SECRET, 1 << 24)


def test_a_snapshot_is_found_again(store: SnapshotStore) -> None:
    assert load(store) is None
    save(store)
    with store.open(identity()) as stored:
        assert stored is not None
        assert (stored.header.count, stored.header.start, stored.header.created_ms) == (9, 4, 17)
        # One of them alone, too.
        assert bytes(stored.read({"junior": JUNIOR})["junior"]) == STATES["junior"]
    assert load(store) == STATES
    store.delete("acme", "AAPL")
    assert load(store) is None
    store.delete("acme", "AAPL")


def test_a_later_snapshot_replaces_the_one_before(store: SnapshotStore, folder: Path) -> None:
    save(store, size=100)
    save(store)
    assert load(store) == STATES
    assert len(held(folder)) == 1


def test_what_was_checked_stays_as_it_was(store: SnapshotStore) -> None:
    path = save(store)
    with store.open(identity()) as stored:
        assert stored is not None
        states = stored.read({"senior": SENIOR})
    path.write_bytes(b"")
    assert bytes(states["senior"]) == STATES["senior"]
    assert states["senior"].readonly


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SnapshotStore, Path, bytes]]:
    store = SnapshotStore(tmp_path_factory.mktemp("kept") / "snapshots", SECRET, 1 << 24)
    path = save(store)
    yield store, path, path.read_bytes()


N_BYTES = len(STATES["senior"]) + len(STATES["junior"])
_FILE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FILE
@given(share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), early=st.booleans())
def test_a_changed_byte_anywhere_is_refused(
    kept: tuple[SnapshotStore, Path, bytes], share: float, change: int, early: bool
) -> None:
    store, path, whole = kept
    # Half of the changes fall on the header, which is a thousandth of the file.
    region = len(whole) - N_BYTES if early else len(whole)
    altered = bytearray(whole)
    altered[int(share * region)] ^= change
    path.write_bytes(altered)
    assert refusal(store) in {"format", "truncated", "hmac", "digest"}
    path.write_bytes(whole)
    assert load(store) == STATES


@_FILE
@given(share=st.floats(0, 1, exclude_max=True), early=st.booleans())
def test_a_file_cut_anywhere_is_refused(
    kept: tuple[SnapshotStore, Path, bytes], share: float, early: bool
) -> None:
    store, path, whole = kept
    region = len(whole) - N_BYTES if early else len(whole)
    path.write_bytes(whole[: int(share * region)])
    assert refusal(store) == "truncated"


def test_a_file_that_is_too_long_is_refused(store: SnapshotStore) -> None:
    path = save(store)
    path.write_bytes(path.read_bytes() + b"\0")
    assert refusal(store) == "truncated"


def test_a_file_cut_while_it_is_read_is_refused(store: SnapshotStore) -> None:
    path = save(store)
    with store.open(identity()) as stored, pytest.raises(SnapshotRefused, match="truncated"):
        assert stored is not None
        os.truncate(path, 5000)
        stored.read({"senior": SENIOR})


@pytest.mark.parametrize("who", [identity("MSFT"), identity(tenant="other")])
def test_another_sessions_file_is_refused(store: SnapshotStore, who: SnapshotIdentity) -> None:
    os.replace(save(store), store._path(who.tenant, who.session_id))
    assert refusal(store, who) == "session"


def test_another_keys_file_is_refused(store: SnapshotStore, folder: Path) -> None:
    save(store)
    assert refusal(SnapshotStore(folder, b"another secret" * 2, 1 << 24)) == "hmac"


def test_another_model_is_refused_before_the_states_are_read(store: SnapshotStore) -> None:
    save(store)
    other = msgspec.structs.replace(identity(), model_hash="n")
    with pytest.raises(SnapshotRefused) as refused, store.open(other):
        pass
    assert refused.value.reason == "model"


def test_other_tokens_and_sequences_never_saved_are_refused(store: SnapshotStore) -> None:
    save(store)
    with store.open(identity()) as stored:
        assert stored is not None
        for wanted in ({"senior": (5, 6, 8)}, {"other": SENIOR}):
            with pytest.raises(SnapshotRefused) as refused:
                stored.read(wanted)
            assert refused.value.reason == "tokens"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_refused(store: SnapshotStore, kind: str) -> None:
    path = save(store)
    away = path.rename(path.with_name("away"))
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(away),
    }[kind]()
    assert refusal(store) == "unreadable"


@pytest.mark.parametrize("session_id", ["../../etc/passwd", "a" * 5000, "", "a/b", "\0", "é\n"])
def test_no_id_leaves_the_folder(store: SnapshotStore, folder: Path, session_id: str) -> None:
    who = identity(session_id)
    path = save(store, who)
    assert path.parent == folder
    assert held(folder) == {path.name}
    assert load(store, who) == STATES


def test_an_id_that_is_no_text_is_not_saved(store: SnapshotStore) -> None:
    who = identity("\ud800")
    with pytest.raises(SnapshotNotSaved):
        save(store, who)
    assert load(store, who) is None


def test_tenant_and_session_do_not_run_together(store: SnapshotStore) -> None:
    assert store._path("a", "bc") != store._path("ab", "c")


def test_the_folder_is_its_owners_alone(store: SnapshotStore, folder: Path) -> None:
    path = save(store)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        SnapshotStore(folder, SECRET, 1)


# The bound


def aged(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def test_the_oldest_used_makes_way(folder: Path) -> None:
    store = SnapshotStore(folder, SECRET, 35_000)
    for age, name in enumerate(("A", "B", "C")):
        aged(save(store, identity(name), 10_000), 1000 + age)
    with store.open(identity("A")) as stored:
        assert stored is not None
        stored.read({"senior": SENIOR})  # A is used now: B is the oldest.
    save(store, identity("D"), 10_000)
    there = []
    for name in "ABCD":
        with store.open(identity(name)) as stored:
            there.append(stored is not None)
    assert there == [True, False, True, True]
    assert store.bytes_used <= store.bytes_max


def test_a_sessions_own_old_snapshot_goes_before_anothers(folder: Path) -> None:
    store = SnapshotStore(folder, SECRET, 25_000)
    aged(save(store, identity("A"), 10_000), 1000)
    aged(save(store, identity("B"), 10_000), 1001)
    save(store, identity("B"), 11_000)
    with store.open(identity("A")) as stored:
        assert stored is not None
    assert store.bytes_used <= store.bytes_max


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ABCDE"), st.integers(1, 40_000)), max_size=12))
def test_the_bound_holds_whatever_is_saved(
    tmp_path_factory: pytest.TempPathFactory, saves: list[tuple[str, int]]
) -> None:
    store = SnapshotStore(tmp_path_factory.mktemp("bound") / "snapshots", SECRET, 50_000)
    for name, size in saves:
        save(store, identity(name), size)
        assert store.bytes_used <= store.bytes_max
        with store.open(identity(name)) as stored:
            assert stored is not None


def test_what_is_bigger_than_the_bound_is_not_saved(folder: Path) -> None:
    store = SnapshotStore(folder, SECRET, 15_000)
    save(store, identity("A"), 10_000)
    with pytest.raises(SnapshotNotSaved, match="at most 15000 bytes"):
        save(store, identity("B"), 20_000)
    with store.open(identity("A")) as stored:
        assert stored is not None


def test_a_full_disk_is_told_and_leaves_nothing(
    store: SnapshotStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save(store, identity("A"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(snapshot_store, "os", SimpleNamespace(**{**vars(os), "replace": full}))
    with pytest.raises(SnapshotNotSaved, match="No space left"):
        save(store, identity("B"))
    assert held(folder) == {before.name}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_while_writing_leaves_nothing(
    store: SnapshotStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = snapshot_store.tempfile.mkstemp

    def onto_full(**arguments: object) -> tuple[int, str]:
        descriptor, name = made(**arguments)
        os.close(descriptor)
        return os.open("/dev/full", os.O_WRONLY), name

    monkeypatch.setattr(snapshot_store, "tempfile", SimpleNamespace(mkstemp=onto_full))
    with pytest.raises(SnapshotNotSaved, match="No space left"):
        save(store)
    assert held(folder) == set()


def test_a_crashs_temporaries_are_cleared_and_a_living_writers_are_not(folder: Path) -> None:
    SnapshotStore(folder, SECRET, 1)
    (folder / "crashed.tmp").write_bytes(b"half")
    with (folder / "alive.tmp").open("wb") as alive:
        snapshot_store.fcntl.flock(alive, snapshot_store.fcntl.LOCK_EX)
        SnapshotStore(folder, SECRET, 1)
        assert held(folder) == {"alive.tmp"}


@pytest.mark.parametrize(("secret", "bytes_max"), [(b"short", 1), (SECRET, -1)])
def test_a_wrong_setting_is_told(folder: Path, secret: bytes, bytes_max: int) -> None:
    with pytest.raises(ConfigError):
        SnapshotStore(folder, secret, bytes_max)


# The secret


def test_a_secret_is_made_once(folder: Path) -> None:
    secret = snapshot_secret(folder)
    assert len(secret) == 32
    assert snapshot_secret(folder) == secret
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert held(folder) == {"key"}


def test_a_secret_that_others_could_read_is_refused(folder: Path) -> None:
    snapshot_secret(folder)
    (folder / "key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        snapshot_secret(folder)


def test_a_damaged_secret_is_refused(folder: Path) -> None:
    snapshot_secret(folder)
    (folder / "key").write_bytes(b"x" * 31)
    with pytest.raises(ConfigError, match="expected 32 bytes"):
        snapshot_secret(folder)


# With the model

TEXT = "The close of AAPL was 150.70, up 0.3 percent on a volume of 1.2 million shares. " * 20


@pytest.fixture(scope="module")
def tokens(model: Model) -> tuple[int, ...]:
    return tuple(model.tokens(TEXT)[:300])


def decode(context: Context, sequence: int, tokens: tuple[int, ...]) -> np.ndarray:
    """The tokens in an empty sequence; the logits after the last but the one run apart."""
    head, last = tokens[:-1], tokens[-1:]
    for one in cut((Run(head, context.ends.get(sequence, 0), (sequence,)),), context.limits):
        context.run(one)
    return next_row(context, sequence, last)


def next_row(context: Context, sequence: int, tokens: tuple[int, ...]) -> np.ndarray:
    run = Run(tokens, context.ends[sequence], (sequence,), (len(tokens) - 1,))
    return context.run(Pass((run,))).rows[0].copy()


@pytest.fixture(scope="module")
def shape(model_path: Path) -> EngineSettings:
    return EngineSettings(
        model_path=model_path, threads=1, batch_tokens=128, forks_max=26, generations_max=1
    )


@pytest.fixture(scope="module")
def source(model: Model, shape: EngineSettings) -> Iterator[Context]:
    one = Context(model, shape, 768)
    yield one
    one.free()


@pytest.fixture
def target(model: Model, shape: EngineSettings) -> Iterator[Context]:
    one = Context(model, shape, 512)
    yield one
    one.free()


@pytest.fixture(scope="module")
def saved(source: Context, tokens: tuple[int, ...]) -> bytes:
    """Sequence 0 of 300 tokens whose first 100 it shares with sequence 1."""
    decode(source, 1, tokens[:100])
    source.fork(1, (0,), 100)
    decode(source, 0, tokens[100:])
    return bytes(source.save_sequence(0))


@pytest.mark.model
def test_a_restored_sequence_goes_on_as_the_saved_one(
    source: Context, target: Context, tokens: tuple[int, ...], saved: bytes, store: SnapshotStore
) -> None:
    store.save(identity(), [State("senior", tokens, memoryview(saved))], count=1, start=0, now_ms=1)
    with store.open(identity()) as stored:
        assert stored is not None
        state = stored.read({"senior": tokens})["senior"]
    # Into a context that holds others already, so that the cells are not the same ones.
    decode(target, 4, tokens[:37])
    target.load_sequence(3, state, tokens)
    assert target.ends[3] == 300
    assert target.cells_used == 337
    more = tokens[:5]
    restored = next_row(target, 3, more)
    source.fork(0, (2,), 300)
    expected = next_row(source, 2, more)
    source.drop((2,))
    assert np.abs(restored - expected).max() <= 0.1
    assert restored.argmax() == expected.argmax()
    # And the books are right: all of it can be dropped and decoded anew.
    target.drop((3,))
    target.drop((4,))
    assert target.cells_used == 0
    target.load_sequence(3, state, tokens)


@pytest.mark.model
def test_a_load_that_cannot_be_is_refused_before_llama_cpp(
    target: Context, tokens: tuple[int, ...], saved: bytes
) -> None:
    target.load_sequence(0, saved, tokens)
    for sequence, wanted in ((0, tokens), (-1, tokens), (28, tokens), (256, tokens), (1, ())):
        with pytest.raises(PlanFault):
            target.load_sequence(sequence, saved, wanted)
    with pytest.raises(PlanFault, match="expected 1 to 212 tokens, got 300"):
        target.load_sequence(1, saved, tokens)
    assert target.ends == {0: 300}


@pytest.mark.model
@pytest.mark.parametrize("case", ["short", "long", "empty", "magic", "tokens"])
def test_data_that_llama_cpp_refuses_leaves_the_sequence_empty(
    target: Context, tokens: tuple[int, ...], saved: bytes, case: str
) -> None:
    data, wanted = saved, tokens
    if case == "short":
        data = saved[: len(saved) // 2]
    elif case == "long":
        data = saved + b"\0"
    elif case == "empty":
        data = b""
    elif case == "magic":
        data = b"\0" + saved[1:]
    else:
        wanted = tokens[:-1]
    with pytest.raises(EngineError, match="decode its tokens instead"):
        target.load_sequence(0, data, wanted)
    assert target.cells_used == 0
    # Still usable, and nothing of the refused data is in it.
    target.load_sequence(0, saved, tokens)
    assert target.ends == {0: 300}


@pytest.mark.model
def test_a_traced_load_is_replayed(
    model: Model, shape: EngineSettings, tokens: tuple[int, ...], saved: bytes, tmp_path: Path
) -> None:
    context = Context(model, shape, 512, Trace(tmp_path / "trace"))
    try:
        context.load_sequence(0, saved, tokens)
        next_row(context, 0, tokens[:5])
    finally:
        context.free()
    (operations,) = read_trace(tmp_path / "trace").values()
    assert [operation[0] for operation in operations] == ["open", "load", "run"]
    assert replay(model, operations) > 0
