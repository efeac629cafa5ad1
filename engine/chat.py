"""A model's own chat template, as the pieces that a session's prompt is made of.

The template is rendered once with marks in place of the texts, and cut at the marks:

    head | system text | between | user text | tail

`head`, `between` and `tail` are the model's own and are tokenised with their special
tokens; what comes between them never is. A session is head, system text, between, and
then lines for ever; a question adds its text and the tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flashfeed.models.errors import ConfigError

_SYSTEM: Final = "FLASHFEEDSYSTEMMARK"
_USER: Final = "FLASHFEEDUSERMARK"


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


def chat_pieces(template: str | None, bos: str = "", eos: str = "") -> ChatPieces:
    """The pieces of a Jinja chat template (GGUF's `tokenizer.chat_template`).

    Where a template has no system role, the system text opens the user turn. Raises
    ConfigError where there is no template, it does not render, or it drops a text.
    """
    if not template:
        raise ConfigError(
            "expected a model with a chat template (GGUF key tokenizer.chat_template), got none: "
            "please use an instruct model"
        )
    try:
        compiled = _environment().from_string(template)
    except jinja2.TemplateError as error:
        raise ConfigError(f"expected a chat template that compiles, got: {error}") from error
    bare = _render(compiled, bos, eos, [{"role": "user", "content": _USER}])
    bare_head, tail = _cut(bare, _USER)
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        head, rest = _cut(_render(compiled, bos, eos, messages), _SYSTEM)
        between, tail = _cut(rest, _USER)
    except ConfigError:
        head, between = bare_head, "\n\n"
    return ChatPieces(head, between, tail, bare_head)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # No clock is given (`strftime_now`): a session must be rebuilt with the very same tokens.
    environment.globals["raise_exception"] = _refuse
    return environment


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _render(compiled: jinja2.Template, bos: str, eos: str, messages: list[Any]) -> str:
    try:
        return compiled.render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=bos,
            eos_token=eos,
            enable_thinking=False,
        )
    except (jinja2.TemplateError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"expected a chat template that renders, got: {error}") from error


def _cut(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or mark in after:
        raise ConfigError("expected a chat template that shows each text once, got another")
    return before, after
