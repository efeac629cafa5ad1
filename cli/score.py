"""`flashfeed score`: how right recorded answers were, by the configuration's outcome rules.

heads/recorded.py says how; `flashfeed replay --score` does the same with what it replays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.codecs.presets import codec_of
from flashfeed.heads.learner import Head
from flashfeed.heads.outcome_rule import PENDING_MAX
from flashfeed.heads.recorded import (
    Moment,
    RecordedAnswer,
    RecordedPast,
    Score,
    Scored,
    score_question,
)
from flashfeed.models.config import Config, SessionTemplate
from flashfeed.models.errors import ConfigError, DecodeFault, RecordError
from flashfeed.models.records import Trade
from flashfeed.models.session import AnsweredBy, FlashQuery, SessionSpec
from flashfeed.models.tenant import session_key

from .feeds import decoded, file_messages
from .score_page import Column, ScoredQuestion, score_page
from .settings import load, outcome_rule
from .worker import feeds_of

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
    "sharpness",
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
    "sharp",
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


def score(options: ScoreOptions) -> int:
    """Print the scores of the feed's questions; 1 where no answer had a label."""
    template, records, answers = _past(options)
    queries = {query.label: query for query in template.spec().flash}
    scored = {
        name: score_question(outcome_rule(template, name), queries[name], records, answers)
        for name in template.rules()
    }
    scores = [one.score for one in scored.values()]
    about = f"{len(records)} records, {len(answers)} answers"
    if options.html is not None:
        pages = [_page_of(queries[name], one) for name, one in scored.items()]
        _write(options.html, score_page(pages, f"{options.feed}: {about}"))
    if options.as_json:
        for one in scores:
            print(msgspec.json.encode(one).decode())
    else:
        print(about)
        print(table(scores))
    return int(not any(one.labels for one in scores))


def learnt_head(
    options: ScoreOptions, question: str
) -> tuple[Head, SessionSpec, FlashQuery, AnsweredBy]:
    """The head that the recorded answers to a question teach, the spec and question that are
    configured, and what answered. Raises ConfigError where that is several models or specs: a
    head is of one."""
    template, records, answers = _past(options)
    spec = template.spec()
    query = next((one for one in spec.flash if one.label == question), None)
    rules = template.rules()
    if query is None or question not in rules:
        known = ", ".join(rules)
        raise ConfigError(f"no question with an outcome rule {question!r}; there are {known}")
    by = {(one.answered_by.model, one.answered_by.spec) for one in answers if one.name == question}
    if len(by) != 1:
        raise ConfigError(
            f"{options.answers}: expected answers to {question} of one model and spec, "
            f"got {len(by)}: {', '.join(sorted(map('/'.join, by)))}"
        )
    [(model, answered)] = by
    scored = score_question(outcome_rule(template, question), query, records, answers)
    return scored.backtest.head, spec, query, AnsweredBy(model=model, spec=answered)


def _past(
    options: ScoreOptions,
) -> tuple[SessionTemplate, list[Moment], list[RecordedAnswer]]:
    """The template that asks, the records, and the answers."""
    config = load(options.config)
    feed = config.feeds.get(options.feed)
    if feed is None:
        raise ConfigError(f"no feed {options.feed!r}; there are {', '.join(config.feeds)}")
    template = config.templates[feed.template]
    if not template.rules():
        raise ConfigError(
            f"templates.{feed.template} has no outcomes; say what the true answers are in "
            f"[templates.{feed.template}.outcomes.NAME], or in a learning question's own outcome"
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
    left_out = (
        (
            one.dropped,
            "were dropped: no record of their session before them, or more than "
            f"{PENDING_MAX} waited",
        ),
        (one.repeated, "came again: the same session, version and event time"),
        (one.unfit, "were left out: no event time, or other choices than the question's"),
    )
    return (note, *(f"{count} answers {what}" for count, what in left_out if count))


def _page_of(query: FlashQuery, scored: Scored) -> ScoredQuestion:
    """A question as the page has it."""
    score, backtest = scored.score, scored.backtest
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


def _answers(path: Path) -> Iterator[RecordedAnswer]:
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
                yield msgspec.convert(fields, RecordedAnswer)
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"{path}:{number}: expected a flash_ready event as JSON: {error}"
            ) from None


async def _records(config: Config, options: ScoreOptions) -> list[Moment]:
    """The records that the feed makes of a file's messages, the last of the same time and
    name alone: it is the correction."""
    supplies = Supplies(config, Uncounted())
    try:
        [feed] = [one for one in feeds_of(config, supplies.outside) if one.name == options.feed]
        form = config.feeds[feed.name]
        codec, _ = codec_of(form.preset, form.codec, form.codec_options)
        found = RecordedPast()
        for message in file_messages(options.records, form.topics[0], codec):
            try:
                values = await decoded(feed, message, supplies)
            except RecordError as error:
                raise ConfigError(f"{message.place}: {error}") from None
            for value in values:
                if isinstance(value, DecodeFault):
                    continue
                for one in feed.mapping(value, message.source).records:
                    if isinstance(one.record, Trade):
                        raise ConfigError(
                            f"feeds.{feed.name} has trades; expected the records that are answered"
                        )
                    found.take(session_key(feed.tenant, feed.session_id(one.key)), one.record)
        return found.moments()
    finally:
        await supplies.stop()
