"""`flashfeed heads`: what questions have learnt, as files (heads/head_file.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from flashfeed.engine.model_hash import model_hash
from flashfeed.engine.model_source import fetch
from flashfeed.heads.head_file import BYTES_MAX, Subject, read_head, write_head
from flashfeed.heads.learner import Head
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, RequestError
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.spec_hash import spec_hash

from .models import catalogue
from .score import ScoreOptions, learnt_head
from .settings import load

SUFFIX: Final = ".head"


def show(path: Path, *, as_json: bool = False) -> int:
    """Print a head, or those in a folder; 1 where one of them is none."""
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: no *{SUFFIX} file in it")
    failed = False
    for file in files:
        try:
            about = described(*_read(file))
        except RequestError as error:
            if not path.is_dir():
                raise ConfigError(f"{file}: {error}") from None
            failed, about = True, {"error": str(error)}
        if as_json:
            print(msgspec.json.encode({"file": str(file)} | about).decode())
        elif path.is_dir():
            print(f"{file.name}: " + (_sentence(about) if "error" not in about else about["error"]))
        else:
            print("\n".join(_lines(about)))
    return int(failed)


def export(config: Path, feed: str, records: Path, answers: Path, question: str, out: Path) -> int:
    """Write the head that the recorded answers to the question teach."""
    if out.exists():
        raise ConfigError(f"{out}: expected a new file, it is there already")
    head, subject = learnt_head(ScoreOptions(config, feed, records, answers), question)
    if not head.version:
        raise ConfigError(f"{question}: no answer has a label, there is nothing to learn from")
    _write(out, write_head(head, subject))
    print(f"{out}: {_sentence(described(head, subject))}")
    return 0


def take(path: Path, config: Path, template: str, question: str, folder: Path) -> int:
    """Copy the head to the folder if it is one of the configured question."""
    try:
        head, subject = _read(path)
    except RequestError as error:
        raise ConfigError(f"{path}: {error}") from None
    wanted = configured(load(config), template, question)
    if differs := differences(subject, wanted):
        raise ConfigError(f"{path}: a head of something else: " + "; ".join(differs))
    target = folder / f"{template}-{question}{SUFFIX}"
    if target.exists():
        raise ConfigError(f"{target}: there is a head already")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    _write(target, write_head(head, subject))
    print(f"{target}: {_sentence(described(head, subject))}")
    return 0


def configured(config: Config, template: str, question: str) -> Subject:
    """What a head of a template's question is of; raises ConfigError where there is none."""
    if template not in config.templates:
        raise ConfigError(f"no template {template!r}; there are {', '.join(config.templates)}")
    spec = config.templates[template].spec()
    query = next((one for one in spec.flash if one.label == question and one.choices), None)
    if query is None:
        known = ", ".join(one.label for one in spec.flash if one.choices) or "there is none"
        raise ConfigError(f"{template}: no question with choices {question!r}: {known}")
    return subject_of(config, spec, query)


def subject_of(config: Config, spec: SessionSpec, query: FlashQuery) -> Subject:
    """What a head of a spec's question is of, with the configured model."""
    models = catalogue(config)
    source = models.resolve(spec.model)[1] if spec.model else models.named[models.default]
    path = fetch(source, models.limits)
    return Subject(model_hash(path), spec_hash(spec), query.query, query.choices)


def differences(got: Subject, wanted: Subject) -> list[str]:
    """What of a head is another than is wanted, in words."""
    return [
        f"expected the {name} {getattr(wanted, name)!r}, got {getattr(got, name)!r}"
        for name in Subject.__struct_fields__
        if getattr(got, name) != getattr(wanted, name)
    ]


def described(head: Head, subject: Subject) -> dict[str, Any]:
    """What a head is of and has learnt, as plain values."""
    counts = head.counts.tolist()
    return {
        "question": subject.query,
        "labels": dict(zip(subject.choices, counts, strict=True)),
        "model": subject.model,
        "spec": subject.spec,
        "version": head.version,
        "examples": len(head.examples),
        "sessions": len(head.last),
        "leading": head.leading,
        "shares": {name: round(share, 4) for name, share in head.shares.items()},
        "hidden_size": 0 if head.weights.hidden is None else len(head.weights.hidden.weights),
        "fitted_at": head.fitted_at,
        "drifted": head.drifted,
    }


def _sentence(about: dict[str, Any]) -> str:
    return (
        f"{about['question']!r} of {', '.join(about['labels'])}: {about['version']} labels, "
        f"{about['leading']} leads"
    )


def _lines(about: dict[str, Any]) -> list[str]:
    width = max(map(len, about)) + 2
    said = {
        name: ", ".join(f"{key} {one}" for key, one in value.items())
        if isinstance(value, dict)
        else value
        for name, value in about.items()
    }
    return [f"{name:{width}}{value}" for name, value in said.items()]


def _read(path: Path) -> tuple[Head, Subject]:
    """A head's file. Raises RequestError where it is none, ConfigError where there is none."""
    try:
        with path.open("rb") as file:
            return read_head(file.read(BYTES_MAX + 1))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
