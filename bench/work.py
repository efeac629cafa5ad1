"""The work that the engine's benchmarks do: a market's candles and four standing questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from flashfeed.engine.model import Model
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

CHOICES = (
    FlashQuery(id=1, query="Is the price going up or down?", choices=("up", "down")),
    FlashQuery(id=2, query="Is the volume high or low?", choices=("high", "low")),
    FlashQuery(id=3, query="Should an alert be raised?", choices=("yes", "no")),
    FlashQuery(id=4, query="Is the trend strong or weak?", choices=("strong", "weak")),
)
FREE_TOKENS = 16
FREE = tuple(
    FlashQuery(id=query.id, query=query.query, max_tokens=FREE_TOKENS) for query in CHOICES
)
PROMPT = "You watch a market. Answer in one word."
GROW = WindowSpec(mode="grow")
CANDLE_TOKENS = 14
"""A default candle line costs at most 15 (DESIGN.md); all of ours cost just this."""
READING_TOKENS = 8


def session_spec(window: WindowSpec) -> SessionSpec:
    """The benchmarks' session, with this window."""
    return SessionSpec(type="ohlcv", prompt=PROMPT, window=window)


def line_of(model: Model, n_tokens: int, seed: int) -> str:
    """A line that is exactly so many tokens long, its end included."""
    text = f"AAPL close 1{seed % 90 + 10}.5 volume "
    while len(model.tokens(text + "\n")) < n_tokens:
        text += str(seed % 10)
        seed = seed * 7 + 3
    assert len(model.tokens(text + "\n")) == n_tokens, text
    return text


def candles(model: Model, seed: int = 0) -> Iterator[str]:
    """Candle lines without end, `CANDLE_TOKENS` each: close, change, volume."""
    return _lines(model, CANDLE_TOKENS, "{0}.{1} +0.{2}% v", seed)


def readings(model: Model, seed: int = 0) -> Iterator[str]:
    """Readings of a sensor without end, `READING_TOKENS` each."""
    return _lines(model, READING_TOKENS, "t{0}.", seed)


def _lines(model: Model, n_tokens: int, pattern: str, seed: int) -> Iterator[str]:
    for number in itertools.count(seed * 7919 + 1):
        text = pattern.format(100 + number * 37 % 900, number * 53 % 10, number * 29 % 10)
        digit = number
        while (length := len(model.tokens(text + "\n"))) < n_tokens:
            text += str(digit % 10)
            digit = digit * 7 + 3
        assert length == n_tokens, f"{text!r} is {length} tokens, expected {n_tokens}"
        yield text


def line_tokens(model: Model, lines: list[str]) -> list[int]:
    """The tokens that a session holds for these lines."""
    return [token for line in lines for token in model.tokens(line + "\n")]


def prefix_tokens(model: Model, prompt: str = PROMPT) -> list[int]:
    """The tokens that a session with this prompt begins with."""
    return [
        *model.first_tokens,
        *model.template_tokens(model.chat.head),
        *model.tokens(prompt),
        *model.template_tokens(model.chat.between),
    ]


def question_tokens(model: Model) -> list[list[int]]:
    """The tokens of each of the four questions, up to where the assistant speaks."""
    return [[*model.tokens(query.query), *model.tail] for query in CHOICES]


def choice_tokens(model: Model) -> list[list[int]]:
    """The first tokens of each question's choices."""
    return [[model.tokens(choice)[0] for choice in query.choices] for query in CHOICES]
