"""Texts as tokens, through llama.cpp's tokeniser: what may be handed to it, and in which pieces.

Two things that it does with a text whole, it must not do with one from outside:

runs    llama.cpp takes most vocabularies' words apart with std::regex, which calls itself
        once a character: some 25,000 characters in a row without an end of a word (base64,
        blanks, one digit) overflow the stack and end the process. A text is cut inside runs
        of more than `RUN_MAX` characters, and nowhere else
tokens  `parse_special` keeps control tokens out of a text, but not those that the file calls
        user-defined: <tool_call> of Qwen3, <|start|> of gpt-oss, <|im_start|> of many
        finetunes. What looks like one is cut after its first character, and stays text

Where a text is cut depends on it and on the vocabulary alone: a session that is rebuilt has
the same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

import llama_cpp.llama_cpp as C

RUN_MAX: Final = 2048
"""Some 330 bytes of stack a character: a tenth of a thread's 8 MB."""

# Each kind holds at least what a pre-tokeniser of llama.cpp may take for one word of that
# kind. To C++ only these six are blank in ASCII; what is not ASCII may be anything.
_SOLID: Final = re.compile(r"[^ \t\n\v\f\r]+")
_BLANK: Final = re.compile(r"\s+")
_WORDS: Final = re.compile(r"[A-Za-z\x80-\U0010ffff ]+")
_SINGLE_SPACE: Final = re.compile(r"(?<=\S) (?=\S)")
_ENDS_A_WORD: Final = frozenset('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~。、，．！？；：（）「」《》…')
"""After a letter or a digit these begin another word, for nearly all pre-tokenisers."""

_MARKUP: Final = re.compile(r"<[^<>]+>|<<[^<>]+>>|\[[^\[\]\s]+\]")
_HTML: Final = re.compile(
    r"</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code)>"
)
"""Gemma's vocabularies have these as user-defined tokens; they are what text is written with."""


class Tokeniser:
    """A loaded vocabulary. `template` is the source of the model's chat template, of which
    no text from outside may make a piece. Any thread may call."""

    def __init__(self, vocabulary: Any, template: str = "") -> None:
        self._vocabulary: Final = vocabulary
        kind = C.llama_vocab_type(vocabulary)
        self._has_runs: Final = kind == C.LLAMA_VOCAB_TYPE_BPE
        self._may_add_space: Final = kind == C.LLAMA_VOCAB_TYPE_SPM
        self._guarded: Final = frozenset(
            text for text in _user_defined(vocabulary) if _guards(text, template)
        )
        self._lengths: Final = sorted({len(text) for text in self._guarded})
        firsts = "".join(sorted({re.escape(text[0]) for text in self._guarded}))
        self._first: Final = re.compile(f"[{firsts}]") if firsts else None

    def text(self, text: str) -> tuple[int, ...]:
        """The tokens of a text from outside: what looks like a special token stays text."""
        # As llama.cpp will see it: half a surrogate pair must not become a part of a mark later.
        whole = text.encode("utf-8", "replace").decode()
        first, *others = [part for run in self._runs(whole) for part in self._unmarked(run)]
        tokens = list(self._call(first))
        for piece in others:
            tokens.extend(self._continued(piece))
        return tuple(tokens)

    def template(self, text: str) -> tuple[int, ...]:
        """The tokens of a piece of the chat template, its special tokens included."""
        return self._call(text, parse_special=True)

    def enclosed(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, and around it those that the model wants there; nothing in
        the text is guarded."""
        first, *others = self._runs(text)
        if not others:
            return self._call(first, add_special=True)
        around = self._call("", add_special=True)
        begin = int(bool(C.llama_vocab_get_add_bos(self._vocabulary)))
        inside = [token for piece in (first, *others) for token in self._call(piece)]
        return (*around[:begin], *inside, *around[begin:])

    def _runs(self, text: str) -> list[str]:
        """The text, cut inside its long runs."""
        if not self._has_runs or len(text) <= RUN_MAX:
            return [text]
        return _cut(text, _run_cuts(text))

    def _unmarked(self, text: str) -> list[str]:
        """The text, cut inside all that would become a guarded token, those that overlap too."""
        if self._first is None or not text:
            return [text]
        places = (found.start() for found in self._first.finditer(text))
        return _cut(text, (at + 1 for at in places if self._is_guarded(text, at)))

    def _is_guarded(self, text: str, at: int) -> bool:
        return any(text[at : at + n] in self._guarded for n in self._lengths)

    def _continued(self, piece: str) -> tuple[int, ...]:
        """The tokens of what goes on within a text."""
        if self._may_add_space:
            # Such vocabularies may begin every text with a space. Behind a line's end there
            # is none, where that is a token of its own.
            line_end = self._call("\n")
            tokens = self._call("\n" + piece)
            if tokens[: len(line_end)] == line_end:
                return tokens[len(line_end) :]
        return self._call(piece)

    def _call(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> tuple[int, ...]:
        if not (text or add_special):
            return ()
        raw = text.encode("utf-8", "replace")
        size = len(raw) + 8
        while True:
            buffer = (C.llama_token * size)()
            n = int(
                C.llama_tokenize(
                    self._vocabulary, raw, len(raw), buffer, size, add_special, parse_special
                )
            )
            if n >= 0:
                return tuple(buffer[:n])
            size = -n


def _cut(text: str, places: Iterable[int]) -> list[str]:
    cuts = sorted({0, *places, len(text)})
    return [text[begin:end] for begin, end in pairwise(cuts)]


def _user_defined(vocabulary: Any) -> Iterator[str]:
    for token in range(int(C.llama_vocab_n_tokens(vocabulary))):
        if C.llama_vocab_get_attr(vocabulary, token) & C.LLAMA_TOKEN_ATTR_USER_DEFINED:
            yield C.llama_vocab_get_text(vocabulary, token).decode("utf-8", "replace")


def _guards(text: str, template: str) -> bool:
    """Whether a user-defined token may mean something to the model that a text must not say.
    Most others stand for blanks, and are how the model reads code."""
    if len(text) < 2 or not text.strip(" \t\r\n▁") or _HTML.fullmatch(text):
        return False
    named = text in template and not text.isalnum()
    return named or _MARKUP.fullmatch(text) is not None


def _run_cuts(text: str) -> Iterator[int]:
    for run in _SOLID.finditer(text):
        yield from _solid_cuts(text, *run.span())
    for run in _BLANK.finditer(text):
        yield from range(run.start() + RUN_MAX, run.end(), RUN_MAX)
    for run in _WORDS.finditer(text):  # EXAONE's words have single spaces in them
        yield from _word_cuts(text, *run.span())


def _solid_cuts(text: str, begin: int, end: int) -> Iterator[int]:
    while end - begin > RUN_MAX:
        most = begin + RUN_MAX
        # Where a word ends anyway, if one does.
        begin = next(
            (at for at in range(most, most - RUN_MAX // 2, -1) if _is_word_end(text, at)), most
        )
        yield begin


def _is_word_end(text: str, at: int) -> bool:
    return text[at - 1].isalnum() and text[at] in _ENDS_A_WORD


def _word_cuts(text: str, begin: int, end: int) -> Iterator[int]:
    if end - begin <= RUN_MAX:
        return
    before = begin
    for space in _SINGLE_SPACE.finditer(text, begin, end):
        if space.start() - begin > RUN_MAX and before > begin:
            yield before
            begin = before
        before = space.start()
    if end - begin > RUN_MAX and before > begin:
        yield before
