"""What a model's chat template writes between the turns of a conversation. Pure.

A *gap* is what stands between two texts: the end of one turn and the header of the next,
or after the last text the header of the answer. It depends on the two roles alone, and
is found once for a model: short conversations are rendered with marks in place of the
texts, and cut at the marks. A pair of roles that the template refuses, or of which it
drops a text, has no gap.

Templates also change texts: many trim them, write tool results as JSON, or leave out the
thinking of an earlier answer. That is found by probes, and done by a `Rewrite`.

A template without a tool role gets results as a user turn in `<tool_response>` tags.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from flashfeed.models.errors import ConfigError

from .chat import ChatTemplate
from .tool_guide import RESULT_CLOSE, RESULT_OPEN

Turn: TypeAlias = Literal["system", "user", "assistant", "tool"]
After: TypeAlias = Literal["system", "user", "assistant", "tool", "reply"]
Gaps: TypeAlias = dict[tuple[Turn, After], str]
Rewrite: TypeAlias = Callable[[str], str]

_A: Final = "FLASHFEEDFIRSTMARK"
_B: Final = "FLASHFEEDSECONDMARK"
_OTHER: Final = "FLASHFEEDOTHERTEXT"
_PROBE: Final = '\n <think>\nFLASHFEEDTHOUGHT\n</think>\n\n FLASHFEED"PROBE\n '

_TURNS: Final[tuple[Turn, ...]] = ("system", "user", "assistant", "tool")
_AFTER: Final[tuple[After, ...]] = (*_TURNS, "reply")
# The turns before one of a role, as every template expects them, and those after it that
# make it a part of the past.
_BEFORE: Final[Mapping[Turn, tuple[Turn, ...]]] = {
    "user": (),
    "assistant": ("user",),
    "system": ("user", "assistant"),
    "tool": ("user", "assistant"),
}
_BEHIND: Final[Mapping[Turn, tuple[Turn, ...]]] = {
    "user": (),
    "assistant": ("user",),
    "system": ("user",),
    "tool": (),
}
_NEEDED: Final[tuple[tuple[Turn, After], ...]] = (
    ("user", "reply"),
    ("user", "assistant"),
    ("assistant", "user"),
)
_TOOL_ROLE: Final[tuple[tuple[Turn, After], ...]] = (
    ("assistant", "tool"),
    ("tool", "tool"),
    ("tool", "assistant"),
    ("tool", "reply"),
)
_THOUGHTS: Final[tuple[Rewrite, ...]] = (
    lambda text: text,
    lambda text: text.rpartition("</think>")[2],
    lambda text: text.rpartition("</think>")[2].lstrip("\n"),
)
_TRIMS: Final[tuple[Rewrite, ...]] = (lambda text: text, str.strip, str.lstrip, str.rstrip)
_FORMS: Final[tuple[Rewrite, ...]] = (
    lambda text: text,
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
)


@dataclass(frozen=True)
class Turns:
    """What a model's template does with the turns of a conversation.

    `gaps` holds what stands between the texts of two roles, for each pair that the
    template can write; after `"reply"` the assistant begins its answer. `rewrites` says
    how a role's texts are changed.
    """

    gaps: Mapping[tuple[Turn, After], str]
    rewrites: Mapping[Turn, Rewrite]


def find_turns(template: ChatTemplate) -> Turns:
    """What the template does with turns. Raises ConfigError where a user's text and an
    answer cannot take turns in it."""
    gaps: Gaps = {}
    for turn, after in itertools.product(_TURNS, _AFTER):
        gap = _gap(template, turn, after)
        if gap is not None:
            gaps[turn, after] = gap
    for pair in _NEEDED:
        if pair not in gaps:
            raise ConfigError(
                f"expected a chat template in which {pair[1]} can follow {pair[0]}, and "
                "both texts are shown once; this one cannot be used for conversations"
            )
    _expect_same_everywhere(template, gaps)
    # A template that writes any role's name as a header was not trained with this one.
    if not template.names("tool") or not all(pair in gaps for pair in _TOOL_ROLE):
        gaps = _with_tags(gaps)
        turns: tuple[Turn, ...] = ("system", "user", "assistant")
    else:
        turns = _TURNS
    return Turns(gaps, {turn: _rewrite(template, turn) for turn in turns})


def _expect_same_everywhere(template: ChatTemplate, gaps: Gaps) -> None:
    """Gaps were found at the beginning of a conversation; later ones must be the same."""
    turns: tuple[Turn, ...] = ("user", "assistant", "user", "assistant", "user")
    pairs: list[tuple[Turn, After]] = [*itertools.pairwise(turns), ("user", "reply")]
    joined = "".join(_OTHER + gaps[pair] for pair in pairs)
    if not template.render([_message(turn, _OTHER) for turn in turns]).endswith(joined):
        raise ConfigError(
            "expected a chat template that writes a turn the same wherever it stands; this "
            "one cannot be used for conversations"
        )


def _gap(template: ChatTemplate, turn: Turn, after: After) -> str | None:
    """What the template writes between two texts; None where it cannot."""
    shown = [*_BEFORE[turn], turn]
    if after == "reply":
        tail: tuple[Turn, ...] = ()
    else:
        tail = (after, *_BEHIND[after])
    messages = [_message(one, _OTHER) for one in (*shown, *tail)]
    messages[len(shown) - 1]["content"] = _A
    if tail:
        messages[len(shown)]["content"] = _B
    try:
        text = template.render(messages)
    except ConfigError:
        return None
    if text.count(_A) != 1 or text.count(_B) != (1 if tail else 0):
        return None
    rest = text.partition(_A)[2]
    if not tail:
        return rest
    gap, found, _ = rest.partition(_B)
    return gap if found and _OTHER not in gap else None


def _message(turn: Turn, text: str) -> dict[str, str]:
    # A tool message has no id and no name: where a template needs them, they would have
    # to be those of calls in its own form, and calls are in Hermes' form here.
    return {"role": turn, "content": text}


def _rewrite(template: ChatTemplate, turn: Turn) -> Rewrite:
    """What the template does to a role's texts: the first guess that explains the probe.

    Where none does, texts are left as they are: they are all there then.
    """

    def rendered(text: str) -> str:
        shown = [*_BEFORE[turn], turn, *_BEHIND[turn]]
        messages = [_message(one, _OTHER) for one in shown]
        messages[len(_BEFORE[turn])]["content"] = text
        return template.render(messages)

    try:
        before, found, behind = rendered(_A).partition(_A)
        probed = rendered(_PROBE)
    except ConfigError:
        return _FORMS[0]
    for form, thought, trim in itertools.product(_FORMS, _THOUGHTS, _TRIMS):
        guess = _composed(form, trim, thought)
        if found and probed == before + guess(_PROBE) + behind:
            return guess
    return _FORMS[0]


def _composed(form: Rewrite, trim: Rewrite, thought: Rewrite) -> Rewrite:
    return lambda text: form(trim(thought(text)))


def _with_tags(gaps: Gaps) -> Gaps:
    """The gaps where tool results are a user turn in tags; a user's text may join it."""
    kept = {pair: gap for pair, gap in gaps.items() if "tool" not in pair}
    kept["assistant", "tool"] = gaps["assistant", "user"] + RESULT_OPEN
    kept["tool", "tool"] = f"{RESULT_CLOSE}\n{RESULT_OPEN}"
    kept["tool", "user"] = f"{RESULT_CLOSE}\n"
    kept["tool", "assistant"] = RESULT_CLOSE + gaps["user", "assistant"]
    kept["tool", "reply"] = RESULT_CLOSE + gaps["user", "reply"]
    return kept
