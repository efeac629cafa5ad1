"""What a model reference means, and which model a request may name.

In the configuration a model is one of

    packaged                              the model of the `model` extra
    /models/x.gguf                        a file
    hf:OWNER/REPO/FILE.gguf[@REVISION]    a file of a Hugging Face repo
    https://HOST/x.gguf[#sha256=HEX]      a file on a host that the configuration allows

A request may name less: a model of the configuration by its name, a file inside one of
`dirs`, or a URL on one of `allow_hosts`; everything else is ModelUnknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flashfeed.models.errors import ConfigError, ModelUnavailable, ModelUnknown

from .gguf import split_names
from .machine import cache_folder
from .model_download import Download, DownloadLimits, download, host_allowed
from .model_hash import model_hash
from .model_probe import probe
from .packaged_model import fastest_form, find_packaged_model

PACKAGED: Final = "packaged"
_HF: Final = "hf:"
_HTTPS: Final = "https://"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PackagedModel:
    """The model of the `model` extra, in its fastest form."""


@dataclass(frozen=True)
class ModelFile:
    """A GGUF file on this machine."""

    path: Path
    sha256: str = ""


@dataclass(frozen=True)
class HuggingFaceFile:
    """A file of a repo, `repo` as owner/name; `revision` "" for its main branch."""

    repo: str
    file: str
    revision: str = ""
    sha256: str = ""


Source = PackagedModel | ModelFile | HuggingFaceFile | Download


def parse_source(text: str, sha256: str = "") -> Source:
    """The source that a configuration's text names. Raises ConfigError.

    `sha256` is what the configuration asks for; a URL can carry it in its fragment.
    """
    if text == PACKAGED:
        if sha256:
            raise ConfigError("expected no sha256 with the packaged model: its form is made here")
        return PackagedModel()
    if text.startswith(_HF):
        return _hugging_face(text, sha256)
    if text.startswith(_HTTPS):
        return parse_url(text, sha256)
    if "://" in text:
        raise ConfigError(
            f"expected packaged, a path, hf:OWNER/REPO/FILE.gguf or an https URL, got {text!r}"
        )
    return ModelFile(Path(text).expanduser(), sha256)


def parse_url(text: str, sha256: str = "") -> Download:
    """A download from `https://HOST/FILE.gguf[#sha256=HEX]`. Raises ConfigError."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"expected an https URL, got {text!r} ({error})") from None
    plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme != "https" or not host or parts.username is not None or not plain:
        raise ConfigError(f"expected https://HOST/FILE.gguf without a login, got {text!r}")
    if parts.fragment:
        key, _, named = parts.fragment.partition("=")
        if key != "sha256" or not _SHA256.fullmatch(named):
            raise ConfigError(f"expected #sha256= and 64 hex digits, got {parts.fragment!r}")
        if sha256 and sha256 != named:
            raise ConfigError(f"expected one sha256, got two that differ: {sha256}, {named}")
        sha256 = named
    name = parts.path.rpartition("/")[2]
    if len(split_names(name)) > 1:
        raise ConfigError(
            f"expected a model in one file, got a part of a split one: {name}; "
            "merge it with llama-gguf-split --merge, or name it as hf:OWNER/REPO/FILE"
        )
    return Download(parts._replace(fragment="").geturl(), sha256)


def _hugging_face(text: str, sha256: str) -> HuggingFaceFile:
    path, _, revision = text.removeprefix(_HF).partition("@")
    parts = path.split("/")
    if len(parts) < 3 or not all(parts) or ".." in parts or not path.endswith(".gguf"):
        raise ConfigError(f"expected hf:OWNER/REPO/FILE.gguf[@REVISION], got {text!r}")
    return HuggingFaceFile("/".join(parts[:2]), "/".join(parts[2:]), revision, sha256)


def default_name(text: str) -> str:
    """The name of a model that the configuration gives none: `packaged`, a file's stem."""
    source = parse_source(text)
    if isinstance(source, PackagedModel):
        return PACKAGED
    if isinstance(source, ModelFile):
        return source.path.stem
    name = source.file if isinstance(source, HuggingFaceFile) else urlsplit(source.url).path
    return name.rpartition("/")[2].removesuffix(".gguf") or "model"


@dataclass(frozen=True)
class Catalogue:
    """The models that a worker can use: those of its configuration by name, and what
    else a request may name."""

    named: Mapping[str, Source]
    default: str
    dirs: tuple[Path, ...] = ()
    limits: DownloadLimits = field(default_factory=DownloadLimits)

    def __post_init__(self) -> None:
        if self.default not in self.named:
            raise ConfigError(
                f"expected the default model among {', '.join(self.named)}, got {self.default!r}"
            )

    def resolve(self, reference: str) -> tuple[str, Source]:
        """The name that a request's model goes by, and its source; "" is the default.

        Raises ModelUnknown, which says what could have been named. Nothing is fetched.
        """
        if not reference:
            return self.default, self.named[self.default]
        if reference in self.named:
            return reference, self.named[reference]
        path = self._inside(reference)
        if path is not None:
            return str(path), ModelFile(path)
        if reference.startswith(_HTTPS) and self.limits.allow_hosts:
            try:
                source = parse_url(reference)
            except ConfigError as error:
                raise ModelUnknown(str(error)) from None
            if host_allowed(source.url, self.limits.allow_hosts):
                return source.url + ("#sha256=" + source.sha256) * bool(source.sha256), source
        raise ModelUnknown(
            f"no model {reference[:200]!r}; known models: {', '.join(sorted(self.named))}"
            f"{self._also()}"
        )

    def _also(self) -> str:
        also = ""
        if self.dirs:
            also += "; files of " + ", ".join(str(folder) for folder in self.dirs)
        if self.limits.allow_hosts:
            also += "; https URLs of " + ", ".join(self.limits.allow_hosts)
        return also

    def _inside(self, reference: str) -> Path | None:
        """The GGUF file that a reference names inside one of the folders, links followed."""
        if not reference.endswith(".gguf"):
            return None
        for folder in self.dirs:
            try:
                root = folder.resolve(strict=True)
                path = (root / reference).resolve(strict=True)
                if path.is_relative_to(root) and path.is_file():
                    return path
            except (OSError, ValueError, RuntimeError):  # not there, a NUL, a loop of links
                continue
        return None


def fetch(
    source: Source,
    limits: DownloadLimits,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The source's file on this machine, downloaded and tried out the first time. Blocks.

    Raises ConfigError (not installed, no such file), ModelRefused or ModelUnavailable.
    """
    say = progress or (lambda _: None)
    root = cache or cache_folder()
    if isinstance(source, PackagedModel):
        return fastest_form(find_packaged_model(), root, say)
    if isinstance(source, Download):
        path = download(source, limits, root / "models" / "downloads", say)
    elif isinstance(source, ModelFile):
        path = source.path
        if not path.is_file():
            raise ConfigError(f"expected a GGUF model file at {path}, got none")
    else:
        path = _from_hugging_face(source, root / "models" / "hugging_face", say)
    if source.sha256 and not isinstance(source, Download):
        _check_hash(path, source.sha256)
    probe(path, root)
    return path


def _check_hash(path: Path, expected: str) -> None:
    digest = model_hash(path)
    if digest != expected:
        raise ConfigError(f"{path}: expected sha256 {expected}, got {digest}")


def _from_hugging_face(source: HuggingFaceFile, folder: Path, say: Callable[[str], None]) -> Path:
    """Through huggingface_hub, which keeps what it has and knows how to log in."""
    place = f"hf:{source.repo}/{source.file}"
    try:
        import huggingface_hub as hub  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError(
            f"{place}: expected huggingface_hub to download it: pip install 'flashfeed[hf]', "
            "or name a file or an https URL"
        ) from None
    say(f"flashfeed: {place}")
    fetch_one: Any = hub.hf_hub_download
    paths: list[Path] = []
    for name in split_names(source.file):
        try:
            got = fetch_one(
                repo_id=source.repo,
                filename=name,
                revision=source.revision or None,
                cache_dir=str(folder),
            )
        except Exception as error:  # its errors come from several libraries
            raise ModelUnavailable(
                f"{place}: huggingface_hub could not fetch {name} ({type(error).__name__}: "
                f"{error}); is there a network, and does the repo have that file?"
            ) from error
        paths.append(Path(got))
    return paths[0]
