"""`flashfeed score`: how right recorded answers were, by the configuration's outcome rules.

Records and answers of a session are put in order by event time: an answer stands after the
record that it was given for. Every answer is scored when its label is known: as it was
published, and as a head says it that learns from the labels before it (heads/backtest.py).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flashfeed.agents.feeds import Feed
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.codecs.presets import codec_of
from flashfeed.heads.backtest import Backtest
from flashfeed.heads.head_file import Subject
from flashfeed.heads.learner import Head
from flashfeed.heads.outcome_rule import PENDING_MAX
from flashfeed.heads.scorecard import Scores
from flashfeed.models.config import Config, SessionTemplate
from flashfeed.models.errors import ConfigError, DecodeFault, RecordError
from flashfeed.models.learning import Features
from flashfeed.models.records import Record, Trade
from flashfeed.models.session import AnsweredBy, FlashQuery
from flashfeed.models.tenant import session_key

from .feeds import decoded, file_messages
from .score_page import Column, ScoredQuestion, score_page
from .settings import load, outcome_rule
from .worker import feeds_of

_LEAST: Final = 1e-9
_FIGURES: Final = (
    "accuracy",
    "brier",
    "skill_base_rate",
    "skill_low",
    "skill_high",
    "skill_persistence",
    "log_loss",
    "auc",
    "ece",
    "coverage",
)
_HEADINGS: Final = (
    "right",
    "brier",
    "skill",
    "from",
    "to",
    "persist",
    "logloss",
    "auc",
    "ece",
    "cover",
)


class ScoreOptions(NamedTuple):
    """What is scored, and how it is printed."""

    config: Path
    feed: str
    records: Path
    answers: Path
    as_json: bool = False
    html: Path | None = None


class _Answer(msgspec.Struct, frozen=True):
    """What is needed of a flash_ready event."""

    answered_by: AnsweredBy

    session_id: str
    name: str
    data_version: int
    event_time: str | None
    probabilities: dict[str, float]
    raw: dict[str, Any] | None = None


class _Moment(NamedTuple):
    """A record, or an answer, at a time (ms since 1970); records come first."""

    time: int
    is_answer: bool
    session: str
    what: Record | _Answer


class Score(msgspec.Struct, frozen=True):
    """A question's scores: as published, and as learnt. Of `waiting` answers the outcome has
    not come, of `unknown` it cannot be known, and `dropped` were not waited for (their session
    had no record before them, or too many waited). `leading` is the forecaster whose word
    weighs most now, `drifted` the label at which one that was fitted last lost that place (0:
    never)."""

    question: str
    labels: int
    waiting: int
    unknown: int
    dropped: int
    published: Scores
    learnt: Scores
    leading: str
    drifted: int


def score(options: ScoreOptions) -> int:
    """Print the scores of the feed's questions; 1 where no answer had a label."""
    template, records, answers = _past(options)
    queries = {query.label: query for query in template.spec().flash}
    scores, pages = [], []
    for name in template.outcomes:
        backtest = Backtest(outcome_rule(template, name), len(queries[name].choices))
        scores.append(_scored(backtest, queries[name], records, answers))
        pages.append(_page_of(queries[name], scores[-1], backtest))
    about = f"{len(records)} records, {len(answers)} answers"
    if options.html is not None:
        _write(options.html, score_page(pages, f"{options.feed}: {about}"))
    if options.as_json:
        for one in scores:
            print(msgspec.json.encode(one).decode())
    else:
        print(about)
        print(table(scores))
    return int(not any(one.labels for one in scores))


def learnt_head(options: ScoreOptions, question: str) -> tuple[Head, Subject]:
    """The head that the recorded answers to a question teach, and what it is of. Raises
    ConfigError where they are of several models or specs: a head is of one."""
    template, records, answers = _past(options)
    query = next((one for one in template.spec().flash if one.label == question), None)
    if query is None or question not in template.outcomes:
        known = ", ".join(template.outcomes)
        raise ConfigError(f"no question with an outcome rule {question!r}; there are {known}")
    by = {one.answered_by for one in answers if one.name == question}
    if len(by) != 1:
        raise ConfigError(
            f"{options.answers}: expected answers to {question} of one model and spec, "
            f"got {len(by)}: {', '.join(sorted(f'{one.model}/{one.spec}' for one in by))}"
        )
    [who] = by
    backtest = Backtest(outcome_rule(template, question), len(query.choices))
    _scored(backtest, query, records, answers)
    return backtest.head, Subject(who.model, who.spec, query.query, query.choices)


def _past(options: ScoreOptions) -> tuple[SessionTemplate, list[_Moment], list[_Answer]]:
    """The template that asks, the records, and the answers."""
    config = load(options.config)
    feed = config.feeds.get(options.feed)
    if feed is None:
        raise ConfigError(f"no feed {options.feed!r}; there are {', '.join(config.feeds)}")
    template = config.templates[feed.template]
    if not template.outcomes:
        raise ConfigError(
            f"templates.{feed.template} has no outcomes; say what the true answers are in "
            f"[templates.{feed.template}.outcomes.NAME]"
        )
    records = asyncio.run(_records(config, options))
    answers = list(_answers(options.answers))
    if not answers:
        raise ConfigError(
            f"{options.answers}: no flash_ready event in it; expected what flashfeed tail --json "
            "or flashfeed replay wrote"
        )
    return template, records, answers


def table(scores: list[Score]) -> str:
    """The scores as a person reads them: two rows a question."""
    width = max(len(one.question) for one in scores) + 2
    head = f"{'question':{width}}{'':11}{'labels':>7}" + "".join(f"{one:>9}" for one in _HEADINGS)
    rows = [head]
    for one in scores:
        for kind, figures in (("published", one.published), ("learnt", one.learnt)):
            numbers = [getattr(figures, name) for name in _FIGURES]
            shown = "".join(f"{'-' if n is None else format(n, '.3f'):>9}" for n in numbers)
            rows.append(f"{one.question:{width}}{kind:11}{figures.labels:7}{shown}")
        rows += [f"{'':{width}}{note}" for note in _notes(one)]
    return "\n".join(rows)


def _notes(one: Score) -> tuple[str, ...]:
    """What its figures do not say."""
    note = (
        f"{one.waiting} answers wait for their outcome, of {one.unknown} it "
        f"cannot be known; {one.leading} leads"
        + (f", after what was fitted lost the lead at label {one.drifted}" * bool(one.drifted))
    )
    if not one.dropped:
        return (note,)
    return (
        note,
        f"{one.dropped} answers were dropped: no record of their session "
        f"before them, or more than {PENDING_MAX} waited",
    )


def _page_of(query: FlashQuery, score: Score, backtest: Backtest) -> ScoredQuestion:
    """A question as the page has it."""
    return ScoredQuestion(
        query.label,
        query.query,
        len(query.choices),
        (
            Column("published", score.published, [*backtest.published.kept]),
            Column("learnt", score.learnt, [*backtest.learnt.kept]),
        ),
        _notes(score),
    )


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _scored(
    backtest: Backtest, query: FlashQuery, records: list[_Moment], answers: list[_Answer]
) -> Score:
    asked = [
        _Moment(_ms(one.event_time), True, one.session_id, one)
        for one in answers
        if one.name == query.label
        and one.event_time
        and set(one.probabilities) == set(query.choices)
    ]
    for moment in sorted([*records, *asked], key=lambda one: one[:2]):
        if isinstance(moment.what, _Answer):
            backtest.answer(
                moment.session,
                moment.what.data_version,
                Features(tuple(map(math.log, _shares(_raw(moment.what), query)))),
                _shares(moment.what.probabilities, query),
            )
        else:
            backtest.record(moment.session, moment.what)
        backtest.settle(moment.session)
    return Score(
        question=query.label,
        labels=backtest.published.labels,
        waiting=backtest.waiting,
        unknown=backtest.unknown,
        dropped=backtest.dropped,
        published=backtest.published.scores(),
        learnt=backtest.learnt.scores(),
        leading=backtest.head.leading,
        drifted=backtest.head.drifted,
    )


def _shares(probabilities: dict[str, float], query: FlashQuery) -> tuple[float, ...]:
    """The probabilities of the choices, in their order, none quite 0."""
    return tuple(max(probabilities[choice], _LEAST) for choice in query.choices)


def _raw(answer: _Answer) -> dict[str, float]:
    """What the model said by itself."""
    said: dict[str, float] = (answer.raw or {}).get("probabilities", answer.probabilities)
    return said if said.keys() == answer.probabilities.keys() else answer.probabilities


def _answers(path: Path) -> Iterator[_Answer]:
    """The flash_ready events in a file of JSON lines, as they are or as replay's `data`; other
    events are passed over."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
            if isinstance(fields, dict):
                fields = fields.get("data", fields)
            if isinstance(fields, dict) and "probabilities" in fields:
                yield msgspec.convert(fields, _Answer)
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"{path}:{number}: expected a flash_ready event as JSON: {error}"
            ) from None


async def _records(config: Config, options: ScoreOptions) -> list[_Moment]:
    """The records that the feed makes of a file's messages, the last of the same time and
    name alone: it is the correction."""
    supplies = Supplies(config, Uncounted())
    try:
        [feed] = [one for one in feeds_of(config, supplies.outside) if one.name == options.feed]
        form = config.feeds[feed.name]
        codec, _ = codec_of(form.preset, form.codec, form.codec_options)
        found: dict[tuple[str, int, str], _Moment] = {}
        for message in file_messages(options.records, form.topics[0], codec):
            try:
                values = await decoded(feed, message, supplies)
            except RecordError as error:
                raise ConfigError(f"{message.place}: {error}") from None
            for value in values:
                if isinstance(value, DecodeFault):
                    continue
                for one in feed.mapping(value, message.source).records:
                    _take(found, feed, one.key, one.record)
        return list(found.values())
    finally:
        await supplies.stop()


def _take(found: dict[tuple[str, int, str], _Moment], feed: Feed, key: str, record: Record) -> None:
    if isinstance(record, Trade):
        raise ConfigError(f"feeds.{feed.name} has trades; expected the records that are answered")
    if record.timestamp is None:
        return
    session, time = session_key(feed.tenant, feed.session_id(key)), round(record.timestamp * 1000)
    named = getattr(record, "sid", None) or getattr(record, "sym", None) or ""
    found[session, time, named] = _Moment(time, False, session, record)


def _ms(time: str | None) -> int:
    """An event's time in ms since 1970."""
    assert time is not None
    try:
        return round(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        raise ConfigError(f"expected an event_time as ISO 8601, got {time!r}") from None
