"""Grammars against llama.cpp's own, and against what a client may send to harm us."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp.llama_cpp as C
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flashfeed.engine.gbnf import parse_gbnf
from flashfeed.engine.grammar import Grammar, Mask, Vocabulary, compile_options
from flashfeed.engine.grammar_rules import compile_rules, utf8_ranges
from flashfeed.engine.model import Model
from flashfeed.models.errors import RequestError
from flashfeed.models.generation import GenerateOptions

BYTES = Vocabulary([bytes([byte]) for byte in range(256)] + [b""])
END = 256


def grammar(text: str, vocabulary: Vocabulary = BYTES) -> Grammar:
    return Grammar(compile_rules(parse_gbnf(text)), vocabulary, (len(vocabulary.pieces) - 1,))


def fits(one: Grammar, text: str) -> bool:
    """Whether the text is whole under a grammar over bytes."""
    for byte in text.encode():
        if not one.allows(byte):
            return False
        one.accept(byte)
    return one.is_complete


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ('root ::= "a" | "b" "c"', ["a", "bc"], ["", "b", "ac", "aa"]),
        ("root ::= [a-cx]{2,3} # three\n", ["ab", "xxc"], ["a", "abcx", "dd"]),
        ("root ::= [^a-y\\n]+", ["zé中😀"], ["", "a", "z\n"]),
        ("root ::= .", ["é", "\n", "😀"], ["", "ab"]),
        ('root ::= ("a" |\n "b")* "!"', ["!", "abba!"], ["ab", "c!"]),
        ('root ::= "\\x41\\u00e9\\U0001F600\\n\\"\\\\"', ['Aé😀\n"\\'], ["A"]),
        ("root ::= [α-ω]? [\\]\\-\\[^-]{2,}", ["β]-", "[^-", "]]"], ["a]]", "α]", "_]"]),
        ('root ::= pair\npair ::= "(" pair? ")"', ["((()))"], ["(()", "())"]),
        ('root ::= ("a"?)* "b"', ["b", "aab"], ["a"]),
        ('root ::= "x"{0}  "y"{1}', ["y"], ["xy", ""]),
        ('root ::= ""', [""], ["a"]),
    ],
)  # fmt: skip
def test_the_notation(text: str, good: list[str], bad: list[str]) -> None:
    assert [one for one in good if not fits(grammar(text), one)] == []
    assert [one for one in bad if fits(grammar(text), one)] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "rule named 'root'"),
        ('start ::= "a"', "'root', got start"),
        ("root ::= other", "'other', which is not defined"),
        ('root ::= "a"\nroot ::= "b"', "line 2: expected one rule"),
        ('root ::= "a', "end of the quotes"),
        ("root ::= [a", "end of the quotes"),
        ("root ::= []", "characters between"),
        ("root ::= [z-a]", "a range"),
        ("root ::= [^\\U00000000-\\U0010FFFF]", "leaves a character"),
        ('root ::= ("a"', "'\\)'"),
        ('root ::= "a")', "end of the rule"),
        ("root = [a]", "'::='"),
        ("::= [a]", "rule's name"),
        ('root ::= "\\q"', "an escape"),
        ('root ::= "\\u12"', "4 hexadecimal"),
        ('root ::= "\\uD800"', "a Unicode character"),
        ('root ::= "\\UFFFFFFFF"', "a Unicode character"),
        ("root ::= *", "something to repeat"),
        ('root ::= "a"{2,1}', "n at or above m"),
        ('root ::= "a"{3000}', "repetitions up to 2000"),
        ('root ::= "a"{0,3000}', "repetitions up to 2000"),
        ('root ::= "a"{,2}', "{m}"),
        ("root ::= <[1]>", "tokens"),
        ("root ::= !<think>", "tokens"),
        ('root ::= root "a"', "left-recursive: root"),
        ('root ::= "a"? other\nother ::= root', "left-recursive"),
        ('root ::= one root "y"\none ::= two\ntwo ::= "" | "x"', "left-recursive"),
        ("root ::= root", "left-recursive"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        grammar(text)


SCRAPS = (
    *("root", "x", "::=", '"', "a", "(", ")", "|", "*", "+", "?", "{2}", "{1,", "[", "]", "^", "-"),
    *("\\", "\\x4", "#", "\n", " ", ".", "é", "<", "\0", "\ud800", "\U0001f600"),
)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(SCRAPS), max_size=25))
def test_whatever_comes_as_a_grammar_is_run_or_refused(parts: list[str]) -> None:
    try:
        grammar("root ::= " + "".join(parts)).allowed()
    except RequestError as error:
        assert "grammar" in str(error)


DOUBLING = 'root ::= s\ns ::= " " s "b" | " " s "c" | "!"'
NASTY = {
    # https://github.com/ggml-org/llama.cpp/issues/26600: ends llama.cpp with SIGSEGV.
    "nested groups": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
    # .../issues/23108: eats all memory.
    "repetitions of repetitions": 'root ::= "a"' + "*" * 60_000,
    "underflow": 'root ::= "a"{5,0}',
    "long literal, often": 'root ::= "' + "x" * 60_000 + '"{2000}',
    "often, often": 'root ::= ((("a"{2000}){2000}){2000}){2000}',
    "many often": "root ::= " + '"a"{2000} ' * 6000,
    "a chain of rules": "root ::= r0\n"
    + "\n".join(f"r{n} ::= r{n + 1}" for n in range(4000))
    + '\nr4000 ::= "a"',
    # llama.cpp's check for left recursion takes 2 ** 60 steps.
    "a chain of choices": "root ::= r0\n"
    + "\n".join(f"r{n} ::= r{n + 1} | r{n + 1}" for n in range(60))
    + '\nr60 ::= "a"',
    "a chain that doubles": "root ::= r0\n"
    + "\n".join(f'r{n} ::= r{n + 1} "x" | r{n + 1} "y"' for n in range(60))
    + '\nr60 ::= "a"',
    "empty, often": "root ::= " + '(("a"?){0,50}){0,50}',
    "doubling": DOUBLING,
    "palindromes": 'root ::= s "!"\ns ::= [ =] s [ =] | [ =] s s | ""',
    "list": 'root ::= l\nl ::= "a" l " "? | "!"',
    "NUL": 'root ::= "\\x00"',
    "surrogates alone": "root ::= [\\uD7FF-\\uE000]",
    "emoji": "root ::= [^😀]{1,2000}",
    "never ends": 'root ::= "a" root',
}  # fmt: skip


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
@pytest.mark.model
def test_nasty_grammars_are_refused_or_run_in_bounded_time(text: str, model: Model) -> None:
    began = slowest = time.thread_time()
    try:
        one = Grammar(compile_rules(parse_gbnf(text)), model.vocabulary, model.ends)
        assert time.thread_time() - began < 5
        slowest = 0.0
        for step in range(60):
            began = time.thread_time()
            tokens = np.flatnonzero(one.allowed())
            if not len(tokens) or int(tokens[step % len(tokens)]) in model.ends:
                break
            # The longest, then any.
            lengths = model.vocabulary.lengths[tokens]
            one.accept(int(tokens[lengths.argmax() if step % 2 else step % len(tokens)]))
            slowest = max(slowest, time.thread_time() - began)
    except RequestError as error:
        slowest = time.thread_time() - began
        assert len(str(error)) < 400
    assert slowest < 5


def test_text_that_can_be_read_in_too_many_ways_ends_with_the_reason() -> None:
    one = grammar(DOUBLING)
    with pytest.raises(RequestError, match="too ambiguous"):
        for _ in range(64):
            one.accept(ord(" "))


def test_deep_and_long_text_keeps_its_memory_bounded() -> None:
    deep = grammar('root ::= "(" root ")" | "!"')
    for _ in range(3000):
        deep.accept(ord("("))
    assert deep.allows(ord("!"))
    long = grammar('root ::= ("a" [^"]* "b" .? "c")*')
    for place in range(30_000):
        long.accept(ord("abc"[place % 3]))
    assert long._kept < 20_000


def test_memory_is_given_back_and_the_text_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashfeed.engine.grammar.KEPT_MAX", 3000)
    one = grammar('root ::= "(" root ")" | "!"')
    assert fits(one, "(" * 200 + "!" + ")" * 200)
    assert one._kept <= 3000 + 600


def test_what_is_not_allowed_is_not_accepted() -> None:
    one = grammar('root ::= "ab"')
    with pytest.raises(RequestError, match="does not allow"):
        one.accept(ord("b"))
    with pytest.raises(RequestError, match="does not allow"):
        one.accept(END)
    assert fits(one, "ab")
    one.accept(END)
    assert one.is_complete


@given(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF))
def test_utf8_ranges_hold_the_ends_and_nothing_beside(one: int, other: int) -> None:
    low, high = sorted((one, other))
    if low <= 0xDFFF and high >= 0xD800:
        return

    def inside(code: int) -> bool:
        raw = chr(code).encode("utf-8", "surrogatepass")
        return any(
            len(raw) == len(parts)
            and all(first <= byte <= last for byte, (first, last) in zip(raw, parts, strict=True))
            for parts in utf8_ranges(low, high)
        )

    probes = {low, high, (low + high) // 2, low - 1, high + 1, low | 0x3F, high & ~0x3F, 0xE000}
    for code in probes:
        if 0 <= code <= 0x10FFFF:
            assert inside(code) == (low <= code <= high)


# llama.cpp's own grammar, to hold ours against. Only for grammars that are known to be kind.

TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Theirs:
    def __init__(self, model: Model, text: str) -> None:
        self._model = model
        self._sampler = C.llama_sampler_init_grammar(model._vocab, text.encode(), b"root")
        # It refuses repetitions of what may be empty, in some of its forms.
        assume(self._sampler)

    def allowed(self) -> Mask:
        array = np.zeros(self._model.n_vocab, TOKEN)
        array["id"] = np.arange(self._model.n_vocab)
        one = C.llama_token_data_array()
        one.data = ctypes.cast(array.ctypes.data, ctypes.POINTER(C.llama_token_data))
        one.size, one.selected, one.sorted = self._model.n_vocab, -1, False
        C.llama_sampler_apply(self._sampler, ctypes.byref(one))
        return np.asarray(array["logit"] == 0)

    def accept(self, token: int) -> None:
        C.llama_sampler_accept(self._sampler, token)

    def free(self) -> None:
        C.llama_sampler_free(self._sampler)


@contextmanager
def theirs(model: Model, text: str) -> Iterator[Theirs]:
    one = Theirs(model, text)
    try:
        yield one
    finally:
        one.free()


def _classes(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


ATOMS = _classes('"a" "{" "the" [a-z] [0-9] [^a-m] "\\x20" "é" [éß] [α-ω] . "," "\\n" other')
REPEATS = _classes("* + ? {2} {1,3} {2,}")


def _more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    sequence = st.lists(inner, min_size=1, max_size=3).map(" ".join)
    return st.one_of(
        st.lists(sequence, min_size=1, max_size=3).map(lambda ones: f"({' | '.join(ones)})"),
        st.tuples(inner, REPEATS).map(lambda pair: f"({pair[0]}){pair[1]}"),
    )


NODES = st.recursive(ATOMS, _more, max_leaves=6)


@pytest.mark.model
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(root=NODES, other=NODES, choices=st.lists(st.integers(0, 2**31), min_size=5, max_size=5))
def test_the_allowed_tokens_are_llama_cpps(
    model: Model, root: str, other: str, choices: list[int]
) -> None:
    text = f"root ::= {root}\nother ::= {other}"
    try:
        ours = Grammar(compile_rules(parse_gbnf(text)), model.vocabulary, model.ends)
    except RequestError as error:
        assert "left-recursive" in str(error)
        return
    # Special tokens are text to llama.cpp; broken characters are none to us.
    words = model.vocabulary
    whole = np.array([b"\0" not in piece and _is_text(piece) for piece in words.pieces])
    compared = whole & (words.lengths > 0)
    compared[list(model.ends)] = True
    with theirs(model, text) as them:
        for choice in choices:
            allowed = ours.allowed()
            assert np.array_equal(allowed[compared], them.allowed()[compared]), text
            going = np.flatnonzero(allowed & whole & (words.lengths > 0))
            if not len(going):
                break
            token = int(going[choice % len(going)])
            assert ours.allows(token)
            ours.accept(token)
            them.accept(token)


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.model
def test_characters_cut_by_tokens_are_put_together(model: Model) -> None:
    one = Grammar(compile_rules(parse_gbnf('root ::= "中😀" [^a]')), model.vocabulary, model.ends)
    tokens = model.tokens("中😀ß")
    assert len(tokens) > 3
    for token in tokens:
        assert not one.is_complete
        one.accept(token)
    assert one.is_complete
    assert set(np.flatnonzero(one.allowed()).tolist()) == model.ends


@pytest.mark.model
def test_masks_cost_nothing_where_the_text_was_in_such_a_place_before(model: Model) -> None:
    program = compile_options(GenerateOptions(grammar='root ::= "\\"" [^"]* "\\""'))
    assert program is not None
    one = Grammar(program, model.vocabulary, model.ends)
    for token in model.tokens('"some words'):
        one.accept(token)
    first = one.allowed()
    one.accept(model.tokens(" more")[0])
    assert one.allowed() is first
    assert not first.flags.writeable
