"""A key tells its tenant; only hashes are held, and no message repeats a key."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from flashfeed.bridge.keys import (
    KEY_BYTES_MAX,
    KEYS_MAX,
    Keys,
    joined,
    key_hash,
    new_key,
    read_hash,
    read_key_list,
    written_hash,
)
from flashfeed.cli.keys_file import read_keys_file
from flashfeed.cli.main import main
from flashfeed.models.config import LimitsConfig
from flashfeed.models.errors import ConfigError

ONE, TWO = "one-key-of-sixteen", "two-key-of-sixteen"


def test_a_key_tells_its_tenant() -> None:
    keys = read_key_list(f"acme:{ONE}, other:{TWO},bare-key-of-sixteen")
    assert keys.authenticate(ONE) == "acme"
    assert keys.authenticate(TWO.encode()) == "other"
    assert keys.authenticate("bare-key-of-sixteen") == "default"
    assert keys.tenants == ["acme", "default", "other"]
    for wrong in ("", "acme", f"acme:{ONE}", ONE[:-1], ONE + " ", ONE.upper(), "\ud800", "x" * 999):
        assert keys.authenticate(wrong) is None
    assert keys.authenticate(ONE + "\0" * KEY_BYTES_MAX) is None
    assert not Keys() and Keys().authenticate("") is None


def test_a_key_with_a_colon_or_other_letters_is_read_whole() -> None:
    keys = read_key_list("acme:has:colons:in:itself,b:sécond-key-of-16")
    assert keys.authenticate("has:colons:in:itself") == "acme"
    assert keys.authenticate("sécond-key-of-16".encode()) == "b"


def test_only_hashes_are_in_memory() -> None:
    keys = read_key_list(f"acme:{ONE}")
    assert keys.hashes() == {"acme": [hashlib.sha256(ONE.encode()).digest()]}
    held = repr(vars(keys)) + repr(keys)
    assert ONE not in held


def test_every_hash_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing: the first key is found no sooner than the last, and than none."""
    compared: list[bytes] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return given == known

    monkeypatch.setattr("flashfeed.bridge.keys.hmac.compare_digest", compare)
    keys = read_key_list(f"a:{ONE},b:{TWO},c:three-key-of-sixteen")
    for key in (ONE, "three-key-of-sixteen", "nobody's key at all", "x" * 600):
        compared.clear()
        keys.authenticate(key)
        assert len(compared) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "got no key"),
        (" , ", "got no key"),
        ("acme:short", "key 1, of tenant acme: expected 16 to 512 bytes, got 5"),
        (f"a b:{ONE}", "key 1: expected a tenant of"),
        (f"acme:{ONE},{'x' * 513}", "key 2, of tenant default"),
        (f"acme:{ONE},other:{ONE}", "acme and other have the same API key"),
    ],
)
def test_a_list_of_keys_that_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_key_list(text)
    assert says in str(refused.value)
    assert ONE not in str(refused.value)


def test_there_are_at_most_so_many_keys() -> None:
    hashes = [key_hash(str(n).encode()) for n in range(KEYS_MAX + 1)]
    assert len(Keys({"a": hashes[1:]}).hashes()["a"]) == KEYS_MAX
    with pytest.raises(ConfigError, match=f"at most {KEYS_MAX}"):
        Keys({"a": hashes})


def test_new_keys_differ_and_their_written_hash_reads_back() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert len(key) >= 43 and key.isascii() and "," not in key
        assert read_hash(written_hash(key)) == key_hash(key.encode())


def test_what_the_command_prints_is_a_keys_file_that_lets_the_key_in(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flashfeed.cli.main", "keys", "new", "acme"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    key = made.stdout.strip()
    assert key not in made.stderr
    lines = made.stderr[made.stderr.index("[tenant.acme]") :]
    path = tmp_path / "keys.toml"
    path.write_text(lines)
    assert read_keys_file(path, LimitsConfig()).keys.authenticate(key) == "acme"


def test_the_command_refuses_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "new", "a b"])
    assert ended.value.code == 2
    assert "expected a tenant's name" in capsys.readouterr().err


def test_a_keys_file_has_limits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(
        f'[tenant.acme]\nkeys = ["{written_hash(ONE)}", "{written_hash(TWO)}"]\n'
        "limits = { sessions = 3 }\n"
        f'[tenant.other]\nkeys = ["{written_hash("third")}"]\n'
    )
    read = read_keys_file(path, LimitsConfig(connections=7))
    assert read.keys.authenticate(ONE) == read.keys.authenticate(TWO) == "acme"
    assert read.limits == {"acme": LimitsConfig(sessions=3, connections=7)}
    both = joined(read.keys, read_key_list("more:another-key-of-16"))
    assert both.tenants == ["acme", "more", "other"]


GOOD = f'[tenant.acme]\nkeys = ["{written_hash(ONE)}"]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'[tenant.acme]\nkeys = ["{ONE}"]', "tenant.acme.keys[0]: expected sha256:"),
        ("[tenant.acme]\nkeys = []", "length >= 1"),
        ("", "missing required field `tenant`"),
        (GOOD.replace("acme", '"a b"'), "[A-Za-z0-9_-]"),
        (GOOD + "limits = { session = 1 }", "limits.session: unknown key"),
        (GOOD + "limits = { sessions = -1 }", ">= 0"),
        (GOOD + "limit = 1", "limit"),
        ("[tenant", "not TOML"),
    ],
)
def test_a_keys_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_keys_file(path, LimitsConfig())
    assert says in str(refused.value) and str(path) in str(refused.value)
    assert ONE not in str(refused.value)


def test_a_keys_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the keys"):
        read_keys_file(tmp_path / "none.toml", LimitsConfig())
