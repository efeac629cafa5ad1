"""Plans: which tokens go through the model in which passes. Pure; no llama.cpp in here.

run     tokens that stand one after another in the same sequences
pass    the runs of one llama_decode
round   the questions that are answered together: as many as there are forks and cells for

An update is one run for the new tokens, which belong to the session and to every fork
of the round, and for each question a run of its own in its forks, so that one pass
gives the first-token distribution of all of them:

    session   [ history | update ]
    fork 1    [ history | update | question 1 ]
    fork 2    [ history | update | question 2 | choice a, its tokens but the last ]
    fork 3    [ history | update | question 2 | choice b, its tokens but the last ]

What is too long for one pass is cut anywhere: positions and sequences stay the same,
so any cut gives the same context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flashfeed.models.errors import EngineError

from .settings import Limits


@dataclass(frozen=True, slots=True)
class Run:
    """`tokens` at `position`, `position` + 1, ... of every one of `sequences`.

    `outputs` are the offsets in `tokens`, ascending, whose logits are wanted.
    """

    tokens: tuple[int, ...]
    position: int
    sequences: tuple[int, ...]
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """The runs of one llama_decode, in batch order."""

    runs: tuple[Run, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens, each a new cell."""
        return n_tokens(self.runs)

    @property
    def n_outputs(self) -> int:
        """Rows of logits that the pass gives."""
        return n_outputs(self.runs)


def n_tokens(runs: Sequence[Run]) -> int:
    """Tokens of the runs, each counted once however many sequences share it."""
    return sum(len(run.tokens) for run in runs)


def n_outputs(runs: Sequence[Run]) -> int:
    """Tokens of the runs whose logits are wanted."""
    return sum(len(run.outputs) for run in runs)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as tokens.

    `tokens` hold the question, the end of the turn and the assistant's header;
    `choices` the token sequence of each allowed answer, () for a free answer of at
    most `max_tokens` tokens. `shared` says whether its forks may share its tokens, as cells
    of a KV cache; a recurrent state is a sequence's own.
    """

    tokens: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    max_tokens: int
    shared: bool = True

    @property
    def n_forks(self) -> int:
        """Sequences needed: one, or one for each choice of more than one token."""
        return max(1, sum(len(choice) > 1 for choice in self.choices))

    @property
    def n_tokens(self) -> int:
        """Tokens that are decoded of it before its answer is written."""
        return self._n_asked + sum(len(choice) - 1 for choice in self.choices)

    @property
    def n_cells(self) -> int:
        """Cells needed at most, from the question's first token to the answer's last."""
        answer = (
            sum(len(choice) - 1 for choice in self.choices) if self.choices else self.max_tokens - 1
        )
        return self._n_asked + answer

    @property
    def _n_asked(self) -> int:
        return len(self.tokens) * (1 if self.shared else self.n_forks)


@dataclass(frozen=True, slots=True)
class Want:
    """What one row of logits is wanted for.

    `question` is the index of the question in its round. With `choice` None it is the
    distribution of the answer's first token, else that of the choice's token `depth`.
    """

    question: int
    choice: int | None = None
    depth: int = 0


class PlanFault(EngineError):
    """A pass that llama.cpp would refuse or abort on. It was not run; a fault of ours."""

    retriable = False


def take(runs: Sequence[Run], tokens: int, outputs: int) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The part of the runs, from the front, that has at most so many tokens and outputs;
    and the rest."""
    taken: list[Run] = []
    for number, run in enumerate(runs):
        size = min(len(run.tokens), tokens)
        if sum(offset < size for offset in run.outputs) > outputs:
            size = run.outputs[outputs]
        head, rest = _split(run, size)
        if size:
            taken.append(head)
            tokens -= size
            outputs -= len(head.outputs)
        if rest.tokens:
            return tuple(taken), (rest, *runs[number + 1 :])
    return tuple(taken), ()


def cut(runs: Sequence[Run], limits: Limits) -> tuple[Pass, ...]:
    """The runs in as few passes as the limits allow, each filled in the order given."""
    passes: list[Pass] = []
    left = tuple(runs)
    while left:
        head, left = take(left, limits.batch_tokens, limits.outputs)
        if head:
            passes.append(Pass(head))
    return tuple(passes)


def _split(run: Run, size: int) -> tuple[Run, Run]:
    if size == len(run.tokens):
        return run, Run((), run.position + size, run.sequences)
    head = Run(
        run.tokens[:size],
        run.position,
        run.sequences,
        tuple(offset for offset in run.outputs if offset < size),
    )
    rest = Run(
        run.tokens[size:],
        run.position + size,
        run.sequences,
        tuple(offset - size for offset in run.outputs if offset >= size),
    )
    return head, rest


def plan_rounds(
    questions: Sequence[Asked], n_forks: int, n_cells: int
) -> tuple[tuple[int, ...], ...] | None:
    """The questions' indices in rounds that need at most `n_forks` and `n_cells` each.

    None where a question does not fit even alone.
    """
    rounds: list[tuple[int, ...]] = []
    current: list[int] = []
    forks_left, cells_left = n_forks, n_cells
    for index, asked in enumerate(questions):
        if asked.n_forks > n_forks or asked.n_cells > n_cells:
            return None
        if asked.n_forks > forks_left or asked.n_cells > cells_left:
            rounds.append(tuple(current))
            current = []
            forks_left, cells_left = n_forks, n_cells
        current.append(index)
        forks_left -= asked.n_forks
        cells_left -= asked.n_cells
    if current:
        rounds.append(tuple(current))
    return tuple(rounds)


def plan_questions(
    questions: Sequence[Asked], position: int, forks: Sequence[int]
) -> tuple[list[Run], list[Want]]:
    """Runs of one round's questions from `position` on, and what each output is wanted for.

    `forks` are as many sequence ids as the questions need together; each question
    takes its own from the front. The outputs of the runs, in order, match the wants.
    """
    assert len(forks) == sum(asked.n_forks for asked in questions), (len(forks), questions)
    runs: list[Run] = []
    wants: list[Want] = []
    taken = 0
    for index, asked in enumerate(questions):
        own = tuple(forks[taken : taken + asked.n_forks])
        taken += asked.n_forks
        length = len(asked.tokens)
        runs.append(Run(asked.tokens, position, own if asked.shared else own[:1], (length - 1,)))
        if not asked.shared:
            runs.extend(Run(asked.tokens, position, (fork,)) for fork in own[1:])
        wants.append(Want(index))
        longer = [place for place, choice in enumerate(asked.choices) if len(choice) > 1]
        for fork, place in zip(own, longer, strict=False):
            tokens = asked.choices[place][:-1]
            runs.append(Run(tokens, position + length, (fork,), tuple(range(len(tokens)))))
            wants.extend(Want(index, place, depth) for depth in range(1, len(tokens) + 1))
    return runs, wants


def check_pass(
    one: Pass,
    limits: Limits,
    ends: Mapping[int, int],
    cells_used: int,
    *,
    shared: bool = True,
) -> dict[int, int]:
    """The sequences' ends after the pass; raises PlanFault where it breaks a limit.

    `ends` has the position after the last token of each sequence in the context (0
    where it is empty), `cells_used` the cells in use. `shared`: a run may be of several
    sequences.
    """
    if not 1 <= one.n_tokens <= limits.batch_tokens:
        raise PlanFault(f"expected 1 to {limits.batch_tokens} tokens, got {one.n_tokens}")
    if one.n_outputs > limits.outputs:
        raise PlanFault(f"expected at most {limits.outputs} outputs, got {one.n_outputs}")
    if cells_used + one.n_tokens > limits.cells:
        raise PlanFault(
            f"expected at most {limits.cells - cells_used} new cells, got {one.n_tokens}"
        )
    after: dict[int, int] = {}
    for run in one.runs:
        if not run.tokens or not run.sequences:
            raise PlanFault("expected tokens and sequences in every run, got none")
        if len(run.sequences) > 1 and not shared:
            raise PlanFault(f"expected runs of one sequence each, got one of {run.sequences}")
        if len(set(run.sequences)) != len(run.sequences):
            raise PlanFault(f"expected each sequence once in a run, got {run.sequences}")
        if min(run.tokens) < 0 or max(run.tokens) >= limits.vocabulary:
            raise PlanFault(f"expected tokens in 0..{limits.vocabulary - 1}, got another")
        if run.outputs and not 0 <= run.outputs[0] <= run.outputs[-1] < len(run.tokens):
            raise PlanFault(f"expected outputs inside the run, got {run.outputs}")
        for sequence in run.sequences:
            if not 0 <= sequence < limits.sequences:
                raise PlanFault(f"expected a sequence below {limits.sequences}, got {sequence}")
            end = after.get(sequence, ends.get(sequence, 0))
            if end != run.position:
                raise PlanFault(f"sequence {sequence} goes on at {end}, the run at {run.position}")
            after[sequence] = run.position + len(run.tokens)
    return after
