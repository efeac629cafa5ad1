"""A model's own chat template, and the pieces that a session's prompt is made of.

The template is rendered with marks in place of the texts, and cut at the marks:

    head | system text | between | user text | tail

`head`, `between` and `tail` are the model's own and are tokenised with their special
tokens; what comes between them never is. A session is head, system text, between, and
then lines for ever; a question adds its text and the tail. Whole conversations are
`chat_turns.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flashfeed.models.errors import ConfigError

_SYSTEM: Final = "FLASHFEEDSYSTEMMARK"
_USER: Final = "FLASHFEEDUSERMARK"


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt. `special`: our own or the template's, so that its special
    tokens count; anything that came from outside is False, and stays text (inv. 6)."""

    text: str
    special: bool


@dataclass(frozen=True)
class ChatPieces:
    """The pieces of a turn of system and user, up to where the assistant speaks.

    `bare` is what a session without a system text begins with: the template's own
    default, if it has one, and the open user turn.
    """

    head: str
    between: str
    tail: str
    bare: str


class ChatTemplate:
    """A compiled Jinja chat template (GGUF's `tokenizer.chat_template`).

    Raises ConfigError where there is none or it does not compile.
    """

    def __init__(self, source: str | None, bos: str = "", eos: str = "") -> None:
        if not source:
            raise ConfigError(
                "expected a model with a chat template (GGUF key tokenizer.chat_template), "
                "got none: please use an instruct model"
            )
        environment = _environment()
        try:
            tree = environment.parse(source)
            self._compiled: Final = environment.from_string(source, _clock(tree))
        except jinja2.TemplateError as error:
            raise ConfigError(f"expected a chat template that compiles, got: {error}") from error
        self._strings: Final = frozenset(
            constant.value
            for constant in tree.find_all(nodes.Const)
            if isinstance(constant.value, str)
        )
        self._bos: Final = bos
        self._eos: Final = eos

    def names(self, word: str) -> bool:
        """Whether the template has the word as a string of its own, as in `role == "tool"`."""
        return word in self._strings

    def render(
        self, messages: Sequence[Mapping[str, object]], generation_prompt: bool = True
    ) -> str:
        """The prompt of a conversation. Raises ConfigError where the template refuses it."""
        try:
            return self._compiled.render(
                messages=messages,
                add_generation_prompt=generation_prompt,
                bos_token=self._bos,
                eos_token=self._eos,
                enable_thinking=False,
            )
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"expected a chat template that renders, got: {error}") from error
        except (AttributeError, RecursionError) as error:
            raise ConfigError(f"expected a chat template that renders, got: {error}") from error


def chat_pieces(template: ChatTemplate) -> ChatPieces:
    """The pieces of a template.

    Where a template has no system role, the system text opens the user turn. Raises
    ConfigError where it does not render, or drops a text.
    """
    bare = template.render([{"role": "user", "content": _USER}])
    bare_head, tail = _cut(bare, _USER)
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        head, rest = _cut(template.render(messages), _SYSTEM)
        between, tail = _cut(rest, _USER)
    except ConfigError:
        head, between = bare_head, "\n\n"
    return ChatPieces(head, between, tail, bare_head)


class _GenerationTag(Extension):
    """`{% generation %}` marks what a model is trained on; for us it is its content."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """As Hugging Face renders chat templates, but for the clock (see `_clock`)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _GenerationTag],
    )
    environment.globals["raise_exception"] = _refuse
    # Jinja's own filter writes for HTML pages (`<` becomes `\u003c`).
    environment.filters["tojson"] = _to_json
    return environment


def _clock(tree: nodes.Template) -> dict[str, Any]:
    """No date is ever given: a session must be rebuilt with the very same tokens.

    Most templates ask whether `strftime_now` is there and have a way without it; the
    others are told that the date is unknown.
    """
    tested = any(
        test.name == "defined" and test.node == nodes.Name("strftime_now", "load")
        for test in tree.find_all(nodes.Test)
    )
    return {} if tested else {"strftime_now": lambda _: "unknown"}


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **style: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **style)


def _cut(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or mark in after:
        raise ConfigError("expected a chat template that shows each text once, got another")
    return before, after
