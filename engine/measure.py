"""What a context's passes cost and how true its logits stay, measured on real passes.

Shared by the choice of a model's form (packaged_model.py) and of a machine's settings
(tune.py). Whoever compares candidates measures them in turns and keeps the best of each
(`best_in_turns`): a busy neighbour then slows all of them, not one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from .context import Context
from .model import Model
from .plan import Pass, Run, cut

LOGIT_DIFF_MAX: Final = 0.1
"""Invariant 5: how far an update's logits may be from those of a fresh context."""
QUESTIONS: Final = 4
_UPDATE_TOKENS: Final = 40
_QUESTION_TOKENS: Final = 12
_FIDELITY_TOKENS: Final = 200

K = TypeVar("K")


def sample_tokens(model: Model, n: int) -> tuple[int, ...]:
    """`n` tokens of lines as sessions hold them."""
    tokens = model.tokens(" 150.70 +0.31% 1.2M\n" * (n // 8 + 1))
    return (tokens * (n // len(tokens) + 1))[:n]


def best_in_turns(candidates: Mapping[K, Callable[[], float]], rounds: int) -> dict[K, float]:
    """The least seconds of each candidate, all of them measured once a round."""
    best: dict[K, float] = {}
    for _ in range(rounds):
        for key, measure in candidates.items():
            best[key] = min(best.get(key, float("inf")), measure())
    return best


def feed(
    context: Context, sequence: int, tokens: tuple[int, ...], position: int
) -> NDArray[np.float32]:
    """Decodes tokens into a sequence; the logits after the last."""
    run = Run(tokens, position, (sequence,), (len(tokens) - 1,))
    for one in cut((run,), context.limits):
        decoded = context.run(one)
    row: NDArray[np.float32] = decoded.rows[-1]
    return row


def pass_seconds(context: Context, tokens: tuple[int, ...]) -> float:
    """Seconds of a pass of the tokens behind sequence 0, which is as before afterwards."""
    end = context.ends.get(0, 0)
    context.commit(0)
    started = time.perf_counter()
    feed(context, 0, tokens, end)
    seconds = time.perf_counter() - started
    context.truncate(0, end)
    return seconds


class Updates:
    """Updates of some sessions of a context, each with its questions in forks.

    Sequences 0..n-1 are the sessions, those behind them the forks.
    """

    def __init__(self, context: Context, tokens: tuple[int, ...], n_sessions: int) -> None:
        self.context = context
        self._new = tokens[:_UPDATE_TOKENS]
        self._questions = [
            tokens[start : start + _QUESTION_TOKENS] for start in range(1, QUESTIONS + 1)
        ]
        self._forks = {
            session: tuple(
                range(n_sessions + session * QUESTIONS, n_sessions + (session + 1) * QUESTIONS)
            )
            for session in range(n_sessions)
        }
        for session in range(n_sessions):
            context.commit(session)

    def seconds(self, n_sessions: int = 1, n_steps: int = 0) -> float:
        """Seconds of the updates of the first sessions in one pass, and of `n_steps` steps
        of one token for each question after it. The sessions are as before afterwards."""
        ends = {session: self.context.ends[session] for session in range(n_sessions)}
        started = time.perf_counter()
        self._run(ends, n_steps)
        seconds = time.perf_counter() - started
        self._undo(ends)
        return seconds

    def rows(self) -> NDArray[np.float32]:
        """The logits after each question of an update of session 0."""
        ends = {0: self.context.ends[0]}
        rows = self._run(ends, 0).copy()
        self._undo(ends)
        return rows

    def _run(self, ends: Mapping[int, int], n_steps: int) -> NDArray[np.float32]:
        shared = self.context.can_cut
        if not shared:
            for session, end in ends.items():
                feed(self.context, session, self._new, end)
        runs: list[Run] = []
        for session, end in ends.items():
            forks = self._forks[session]
            self.context.fork(session, forks, self.context.ends[session])
            if shared:
                runs.append(Run(self._new, end, (session, *forks)))
            for fork, question in zip(forks, self._questions, strict=True):
                position = end + len(self._new)
                runs.append(Run(question, position, (fork,), (len(question) - 1,)))
        for one in cut(runs, self.context.limits):
            rows = self.context.run(one).rows
        behind = len(self._new) + _QUESTION_TOKENS
        for step in range(n_steps):
            steps = tuple(
                Run(self._new[:1], end + behind + step, (fork,), (0,))
                for session, end in ends.items()
                for fork in self._forks[session]
            )
            self.context.run(Pass(steps))
        return rows

    def _undo(self, ends: Mapping[int, int]) -> None:
        for session, end in ends.items():
            self.context.drop(self._forks[session])
            self.context.truncate(session, end)


def fork_logit_diff(
    context: Context, tokens: tuple[int, ...], n_history: int = _FIDELITY_TOKENS
) -> float:
    """How far logits move when a question's cells lie elsewhere, as they do in a fork.

    The sums of attention are then taken in another order. That alone is rounding, but
    8-bit kernels round each activation again and make much of little. Leaves the
    context empty.
    """
    context.clear()
    history = tokens[:n_history]
    questions = [tokens[start : start + 11 + start] for start in range(QUESTIONS)]
    feed(context, 0, history, 0)
    forks = tuple(range(1, len(questions) + 1))
    context.fork(0, forks, len(history))
    runs = tuple(
        Run(question, len(history), (fork,), (len(question) - 1,))
        for question, fork in zip(questions, forks, strict=True)
    )
    forked = context.run(Pass(runs)).rows.copy()
    differences = []
    for question, row in zip(questions, forked, strict=True):
        context.clear()
        fresh = feed(context, 0, history + question, 0)
        differences.append(float(np.abs(fresh - row).max()))
    context.clear()
    return max(differences)
