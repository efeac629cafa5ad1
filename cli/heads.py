"""`flashfeed heads`: what questions have learnt, in the group (heads_topic.py) and as files
(heads/head_file.py)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flashfeed.agents.session_learning import head_name
from flashfeed.engine.model_hash import model_hash
from flashfeed.engine.model_source import fetch
from flashfeed.heads.head_file import BYTES_MAX, Subject, read_head, write_head
from flashfeed.heads.learner import EXAMPLES_MAX, Head
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, RequestError
from flashfeed.models.learning import HeadName
from flashfeed.models.spec_hash import spec_hash

from .heads_topic import (
    NO_HEADS,
    example_records,
    group_heads,
    one_of,
    restored,
    send_examples,
)
from .models import catalogue
from .score import ScoreOptions, learnt_head
from .settings import load
from .whole_topics import read_topics

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


def show_group(config: Path, *, as_json: bool = False) -> int:
    """Print the heads of the running group, as `flashfeed.heads` has them."""
    loaded = load(config)
    [messages] = asyncio.run(read_topics(loaded, [loaded.topics.heads], NO_HEADS))
    for key, record in sorted(group_heads(messages).items()):
        head, subject = read_head(record.weights, record.head.subject)
        about = described(head, subject) | {"examples": min(head.version, EXAMPLES_MAX)}
        if as_json:
            named = {"key": key, "tenant": record.head.tenant, "name": record.head.label}
            print(msgspec.json.encode(named | about).decode())
        else:
            print(f"{key} {record.head.label}: {_sentence(about)}")
    return 0


class Recorded(NamedTuple):
    """Answers and records in files, and the feed that they came by."""

    feed: str
    records: Path
    answers: Path


def recorded(feed: str, records: Path | None, answers: Path | None) -> Recorded | None:
    """What to learn a head from; None: nothing, the group's is meant."""
    if feed and records is not None and answers is not None:
        return Recorded(feed, records, answers)
    if feed or records is not None or answers is not None:
        raise ConfigError("expected --feed, --records and --answers together, or none of them")
    return None


def export(config: Path, question: str, out: Path, recorded: Recorded | None) -> int:
    """Write the head that the recorded answers to the question teach, or the group's."""
    if out.exists():
        raise ConfigError(f"{out}: expected a new file, it is there already")
    if recorded is not None:
        head, subject = _learnt(config, question, recorded)
    else:
        loaded = load(config)
        topics = [loaded.topics.heads, loaded.topics.reservoirs]
        messages, reservoirs = asyncio.run(read_topics(loaded, topics, NO_HEADS))
        record = one_of(group_heads(messages), question)
        head, subject = restored(record, reservoirs), record.head.subject
    _write(out, write_head(head, subject))
    print(f"{out}: {_sentence(described(head, subject))}")
    return 0


def _learnt(config: Path, question: str, recorded: Recorded) -> tuple[Head, Subject]:
    options = ScoreOptions(config, recorded.feed, recorded.records, recorded.answers)
    head, spec, query, by = learnt_head(options, question)
    if by.spec != spec_hash(spec):
        raise ConfigError(
            f"{recorded.answers}: the answers are of spec {by.spec}, the configured one is "
            f"{spec_hash(spec)}: a head of it would mean nothing"
        )
    if not head.version:
        raise ConfigError(f"{question}: no answer has a label, there is nothing to learn from")
    return head, head_name(spec, query, by.model).subject


def take(path: Path, config: Path, template: str, question: str, folder: Path | None) -> int:
    """Bring the head to the group, or to the folder, if it is one of the configured question."""
    try:
        head, subject = _read(path)
    except RequestError as error:
        raise ConfigError(f"{path}: {error}") from None
    loaded = load(config)
    name, learns = configured(loaded, template, question)
    if differs := differences(subject, name.subject):
        raise ConfigError(f"{path}: a head of something else: " + "; ".join(differs))
    if folder is not None:
        return _keep(folder / f"{template}-{question}{SUFFIX}", head, subject)
    if not learns:
        raise ConfigError(f"{template}: question {question} does not learn: learn = true does")
    return asyncio.run(_send(loaded, name, head))


def _keep(target: Path, head: Head, subject: Subject) -> int:
    if target.exists():
        raise ConfigError(f"{target}: there is a head already")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target.parent}: {error.strerror}") from None
    _write(target, write_head(head, subject))
    print(f"{target}: {_sentence(described(head, subject))}")
    return 0


async def _send(config: Config, name: HeadName, head: Head) -> int:
    [messages] = await read_topics(config, [config.topics.heads], NO_HEADS)
    if name.key in group_heads(messages):
        raise ConfigError(
            f"the group has a head {name.key} already: what both learnt would count twice"
        )
    examples = example_records(head, name)
    await send_examples(config, examples)
    print(f"{config.topics.examples}: {len(examples)} examples for the head {name.key}")
    return 0


def configured(config: Config, template: str, question: str) -> tuple[HeadName, bool]:
    """What a head of a template's question is called, with the configured model, and whether
    it learns; raises ConfigError where there is no such question."""
    if template not in config.templates:
        raise ConfigError(f"no template {template!r}; there are {', '.join(config.templates)}")
    spec = config.templates[template].spec()
    query = next((one for one in spec.flash if one.label == question and one.choices), None)
    if query is None:
        known = ", ".join(one.label for one in spec.flash if one.choices) or "there is none"
        raise ConfigError(f"{template}: no question with choices {question!r}: {known}")
    models = catalogue(config)
    path = fetch(models.resolve(spec.model)[1], models.limits)
    return head_name(spec, query, model_hash(path)), query.learn


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
