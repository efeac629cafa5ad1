"""What a model reference means, and which a request may name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flashfeed.engine import find_packaged_model
from flashfeed.engine.model_download import Download, DownloadLimits
from flashfeed.engine.model_hash import model_hash
from flashfeed.engine.model_source import (
    Catalogue,
    HuggingFaceFile,
    ModelFile,
    PackagedModel,
    default_name,
    fetch,
    parse_source,
)
from flashfeed.models.errors import ConfigError, ModelUnavailable, ModelUnknown

from tiny_gguf import tiny_model

SHA = "a" * 64
LIMITS = DownloadLimits(allow_hosts=("example.com",))


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("packaged", PackagedModel(), "packaged"),
        ("/models/x.gguf", ModelFile(Path("/models/x.gguf")), "x"),
        ("hf:Qwen/Q-GGUF/q8.gguf", HuggingFaceFile("Qwen/Q-GGUF", "q8.gguf"), "q8"),
        ("hf:a/b/c/d.gguf@v1.0", HuggingFaceFile("a/b", "c/d.gguf", "v1.0"), "d"),
        ("https://x.org/m.gguf", Download("https://x.org/m.gguf"), "m"),
        (
            f"https://x.org/m.gguf?download=true#sha256={SHA}",
            Download("https://x.org/m.gguf?download=true", SHA),
            "m",
        ),
    ],
)
def test_a_configured_source(text: str, source: object, name: str) -> None:
    assert parse_source(text) == source
    assert default_name(text) == name


@pytest.mark.parametrize(
    ("text", "sha256", "says"),
    [
        ("http://x.org/m.gguf", "", "https"),
        ("ftp://x.org/m.gguf", "", "https"),
        ("https:///m.gguf", "", "HOST"),
        ("https://u:p@x.org/m.gguf", "", "login"),
        ("https://x.org:port/m.gguf", "", "https URL"),
        ("https://x.org/a b.gguf", "", "HOST"),
        ("https://x.org/m.gguf#md5=1", "", "sha256="),
        (f"https://x.org/m.gguf#sha256={SHA}", "b" * 64, "differ"),
        ("https://x.org/m-00001-of-00002.gguf", "", "llama-gguf-split"),
        ("hf:owner/file.gguf", "", "hf:OWNER/REPO"),
        ("hf:owner/repo/file.bin", "", "hf:OWNER/REPO"),
        ("hf:owner/repo/../x.gguf", "", "hf:OWNER/REPO"),
        ("packaged", SHA, "sha256"),
    ],
)
def test_a_source_that_means_nothing(text: str, sha256: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_source(text, sha256)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """`models/` may be named from, `secret.gguf` beside it may not."""
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    for name in ("models/a.gguf", "models/sub/b.gguf", "models/notes.txt", "secret.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    (folder / "link.gguf").symlink_to(tmp_path / "secret.gguf")
    (folder / "inside.gguf").symlink_to(folder / "sub" / "b.gguf")
    (folder / "loop.gguf").symlink_to(folder / "loop.gguf")
    (folder / "folder.gguf").mkdir()
    named = {"small": PackagedModel(), "big": ModelFile(Path("/models/big.gguf"))}
    return Catalogue(named, "small", (tmp_path / "gone", folder), LIMITS)


def test_a_name_comes_first_and_nothing_is_the_default(catalogue: Catalogue) -> None:
    assert catalogue.resolve("") == ("small", PackagedModel())
    assert catalogue.resolve("big") == ("big", ModelFile(Path("/models/big.gguf")))


def test_a_file_inside_the_folders(catalogue: Catalogue, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for reference, file in (
        ("a.gguf", "a.gguf"),
        ("sub/b.gguf", "sub/b.gguf"),
        ("inside.gguf", "sub/b.gguf"),
        ("sub/../a.gguf", "a.gguf"),
        (str(folder / "a.gguf"), "a.gguf"),
    ):
        path = (folder / file).resolve()
        assert catalogue.resolve(reference) == (str(path), ModelFile(path))


@pytest.mark.parametrize(
    "reference",
    [
        "../secret.gguf",
        "sub/../../secret.gguf",
        "link.gguf",
        "loop.gguf",
        "folder.gguf",
        "notes.txt",
        "none.gguf",
        "a.gguf\0.gguf",
        "x" * 5000 + ".gguf",
        "packaged",
        "hf:a/b/c.gguf",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://example.com/m.gguf",
        "https://evil.org/m.gguf",
        "https://example.com@evil.org/m.gguf",
        "https://example.com/m.gguf#sha256=short",
    ],
)
def test_everything_else_is_unknown(catalogue: Catalogue, reference: str) -> None:
    with pytest.raises(ModelUnknown) as caught:
        catalogue.resolve(reference)
    assert caught.value.status == 404


def test_what_is_outside_by_its_whole_path_is_unknown(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(ModelUnknown):
        catalogue.resolve(str(tmp_path / "secret.gguf"))


def test_the_error_names_the_known_models(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(ModelUnknown) as caught:
        catalogue.resolve("gpt-4")
    text = str(caught.value)
    assert "'gpt-4'" in text
    assert "big, small" in text
    assert str(tmp_path / "models") in text
    assert "example.com" in text


def test_a_url_on_an_allowed_host(catalogue: Catalogue) -> None:
    url = "https://example.com/m.gguf"
    assert catalogue.resolve(url) == (url, Download(url))
    assert catalogue.resolve(f"{url}#sha256={SHA}") == (f"{url}#sha256={SHA}", Download(url, SHA))
    shut = Catalogue(catalogue.named, "small", limits=DownloadLimits())
    with pytest.raises(ModelUnknown):
        shut.resolve(url)


def test_the_default_must_be_there() -> None:
    with pytest.raises(ConfigError, match="default"):
        Catalogue({"a": PackagedModel()}, "b")


@pytest.mark.model
def test_a_file_is_checked_for_its_hash(tmp_path: Path, model_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", model_path, "llama")
    digest = model_hash(path)
    assert fetch(parse_source(str(path), digest), LIMITS, tmp_path) == path
    with pytest.raises(ConfigError, match=f"expected sha256 {SHA}, got {digest}"):
        fetch(parse_source(str(path), SHA), LIMITS, tmp_path)
    with pytest.raises(ConfigError, match="got none"):
        fetch(parse_source(str(tmp_path / "none.gguf")), LIMITS, tmp_path)


@pytest.mark.model
def test_the_packaged_model_comes_in_its_fastest_form(model_path: Path) -> None:
    assert fetch(PackagedModel(), LIMITS) == model_path
    assert model_path != find_packaged_model()


def test_without_huggingface_hub_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"flashfeed\[hf\]"):
        fetch(HuggingFaceFile("a/b", "c.gguf"), LIMITS, tmp_path)


def test_all_parts_of_a_split_model_come_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def hf_hub_download(repo_id: str, filename: str, revision: str | None, cache_dir: str) -> str:
        asked.append((repo_id, filename, revision))
        assert Path(cache_dir).is_relative_to(tmp_path)
        return f"{cache_dir}/{filename}"

    hub: Any = ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr("flashfeed.engine.model_source.probe", lambda *_: None)
    path = fetch(parse_source("hf:a/b/c-00001-of-00002.gguf@v2"), LIMITS, tmp_path)
    assert path.name == "c-00001-of-00002.gguf"
    assert asked == [("a/b", f"c-0000{part}-of-00002.gguf", "v2") for part in (1, 2)]


def test_what_the_hub_cannot_give_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hf_hub_download(**_: Any) -> str:
        raise OSError("no route to host")

    hub: Any = ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ModelUnavailable, match=r"hf:a/b/c\.gguf.*no route to host"):
        fetch(HuggingFaceFile("a/b", "c.gguf"), LIMITS, tmp_path)
