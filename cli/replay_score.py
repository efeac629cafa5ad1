"""A replay as a backtest: its answers held against its own records by the outcome rules.

Records and answers of the range are kept in memory for it, about a kilobyte for both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from flashfeed.agents.replay_hidden import HiddenRows
from flashfeed.agents.replay_sessions import ReplayOut
from flashfeed.heads.paired import Difference, Pair, difference
from flashfeed.heads.recorded import RecordedAnswer, RecordedPast, Scored, score_question
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, ValidationFault
from flashfeed.models.events import FlashReady
from flashfeed.models.messages import Records, pushed_text
from flashfeed.models.records import make_record
from flashfeed.models.session import FlashQuery
from flashfeed.models.views import SessionEvent

from .score import table
from .settings import outcome_rule


def wants_score(config: Config) -> bool:
    """Whether any question has an outcome rule."""
    return any(template.rules() for template in config.templates.values())


class Judge:
    """Hears a replay's records and answers, and scores them by the configuration's rules.
    `hidden` is where the replay puts what a head reads of each answer; None where the
    configuration's heads read no hidden states."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._past = RecordedPast()
        self._answers: dict[str, list[RecordedAnswer]] = defaultdict(list)
        self._template_of: dict[str, str] = {}
        self._model_of: dict[tuple[str, str], str] = {}
        self._scored = frozenset(self.questions())
        self.hidden = HiddenRows() if config.learning.hidden_states else None
        self.trades = 0

    def heard(self, session: str, message: Records) -> None:
        """Records of a session."""
        self._template_of.setdefault(session, message.template)
        for one in message.records:
            if pushed_text(one.fields) is not None:
                continue
            if message.type == "trade":
                self.trades += 1
                continue
            try:
                self._past.take(session, make_record(message.type, one.fields))
            except ValidationFault:  # its session refuses it as well, and counts it
                continue

    def beside(self, out: ReplayOut) -> ReplayOut:
        """An output that gives this judge the answers as well."""
        return _Beside(out, self)

    def take(self, events: Iterable[SessionEvent]) -> None:
        """A version's events."""
        for event in events:
            if isinstance(event, FlashReady) and event.probabilities:
                raw = {"probabilities": event.raw.probabilities} if event.raw else None
                self._answers[event.name].append(
                    RecordedAnswer(
                        event.session_id,
                        event.name,
                        event.data_version,
                        event.event_time,
                        event.probabilities,
                        raw,
                        event.answered_by,
                        self._row(event),
                    )
                )

    def _row(self, event: FlashReady) -> bytes:
        """What a head reads of the answer; nothing where another model gave it than the
        question's first: a head is of one model, and of one width."""
        row = self.hidden.take(event) if self.hidden is not None else b""
        if event.name not in self._scored:
            return b""
        asked = self._template_of.get(event.session_id, ""), event.name
        model = event.answered_by.model
        return row if self._model_of.setdefault(asked, model) == model else b""

    @property
    def timeless(self) -> int:
        """Records without a time, which cannot be held against anything."""
        return self._past.timeless

    def scored(self) -> list[Scored]:
        """Every question with an outcome rule, each over its template's sessions."""
        moments = self._past.moments()
        found = []
        for name, template in self._config.templates.items():
            records = [one for one in moments if self._template_of.get(one.session) == name]
            queries = {query.label: query for query in template.spec().flash}
            for question in template.rules():
                query = queries[question]
                answers = [
                    one
                    for one in self._answers[question]
                    if self._template_of.get(one.session_id) == name
                ]
                rule = outcome_rule(template, question)
                found.append(score_question(rule, query, records, answers))
        return found

    def questions(self) -> dict[str, FlashQuery]:
        """The questions that are scored."""
        return {
            query.label: query
            for template in self._config.templates.values()
            for query in template.spec().flash
            if query.label in template.rules()
        }


class _Beside:
    def __init__(self, out: ReplayOut, judge: Judge) -> None:
        self._out = out
        self._judge = judge

    async def write(self, events: Sequence[SessionEvent]) -> None:
        self._judge.take(events)
        await self._out.write(events)


def scorecard(judge: Judge) -> str:
    """The scores of a replay as a person reads them."""
    return "\n".join([table([one.score for one in judge.scored()]), *_left_out(judge)])


def compared(one: Judge, other: Judge) -> str:
    """Two replays of the same range side by side, and whether the difference is chance. Raises
    ConfigError where they share no question."""
    questions, others = one.questions(), other.questions()
    shared = [
        name
        for name, query in questions.items()
        if name in others and set(query.choices) == set(others[name].choices)
    ]
    if not shared:
        raise ConfigError(
            "--against: expected a question of the same name and choices in both, got "
            f"{', '.join(questions)} and {', '.join(others)}"
        )
    first, second = one.scored(), other.scored()
    rows = ["-c", table([it.score for it in first]), "", "--against"]
    rows += [table([it.score for it in second]), ""]
    rows.append(
        "mean log loss of -c less that of --against, over the same answers: below 0 -c is better"
    )
    for name in shared:
        pairs = [_pairs(scored, name) for scored in (first, second)]
        both = pairs[0].keys() & pairs[1].keys()
        for at, kind in enumerate(("published", "learnt")):
            found = difference(
                Pair(
                    key[1],
                    max(pairs[0][key][0], pairs[1][key][0]),
                    pairs[0][key][1][at],
                    pairs[1][key][1][at],
                )
                for key in both
            )
            rows.append(f"{name:20} {kind:11}{verdict(found)}")
    return "\n".join([*rows, *_left_out(one)])


def _pairs(
    scored: Iterable[Scored], name: str
) -> dict[tuple[str, int], tuple[int, tuple[float, float]]]:
    """Each label's losses by session and time, and when it was known."""
    return {
        (loss.session, loss.time): (loss.known, (loss.published, loss.learnt))
        for one in scored
        if one.score.question == name
        for loss in one.losses
    }


def verdict(found: Difference | None) -> str:
    """A difference in words. Pure."""
    if found is None:
        return "no label in common"
    said = f"{found.mean:+.4f} ({found.one:.4f} and {found.other:.4f}), {found.labels} labels"
    if found.low is None or found.high is None:
        return f"{said}; too few to say more"
    better = (
        "neither is better"
        if found.low <= 0 <= found.high
        else ("-c is better" if found.mean < 0 else "--against is better")
    )
    return f"{said}; 95% from {found.low:+.4f} to {found.high:+.4f}, p {found.p:.3f}: {better}"


def _left_out(judge: Judge) -> list[str]:
    said = []
    if judge.timeless:
        said.append(f"{judge.timeless} records have no time, and were not held against anything")
    if judge.trades:
        said.append(f"{judge.trades} trades were not held against anything: score their bars")
    return said
