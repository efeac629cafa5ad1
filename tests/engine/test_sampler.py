"""The sampler against naive implementations of what its options mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flashfeed.engine.grammar import Grammar, Vocabulary, compile_options
from flashfeed.engine.sampler import Sampler, nucleus
from flashfeed.models.errors import EngineError, RequestError
from flashfeed.models.generation import GenerateOptions

Row = NDArray[np.float32]
HALVES = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
N = 40

rows = st.lists(st.floats(-20, 20, width=32), min_size=N, max_size=N, unique=True).map(
    lambda values: np.array(values, np.float32)
)


def sampler(n: int = N, prompt: tuple[int, ...] = (), **options: Any) -> Sampler:
    return Sampler(GenerateOptions(**options), n, prompt, (n - 1,))


def drawn(row: Row, times: int, **options: Any) -> list[int]:
    one = sampler(len(row), seed=3, **options)
    return [one.pick(row).token for _ in range(times)]


@given(rows, st.floats(0.1, 5), st.integers(0, 2**64 - 1))
def test_greedy_top_k_one_and_the_coldest_temperature_are_the_same(
    row: Row, temperature: float, seed: int
) -> None:
    likeliest = int(row.argmax())
    assert sampler().pick(row).token == likeliest
    assert sampler(temperature=temperature, top_k=1, seed=seed).pick(row).token == likeliest
    assert sampler(temperature=1e-9, seed=seed).pick(row).token == likeliest


@given(rows, st.floats(0, 1))
def test_the_nucleus_is_the_fewest_tokens_that_hold_top_p(row: Row, top_p: float) -> None:
    weights = np.exp(row.astype(np.float64) - float(row.max()))
    weights /= weights.sum()
    kept = nucleus(row, top_p)
    held = float(weights[kept].sum())
    assert set(kept.tolist()) == set(np.argsort(-row)[: len(kept)].tolist())
    assert held >= top_p - 1e-5
    assert len(kept) == 1 or held - float(weights[kept[-1]]) < top_p + 1e-5


def test_a_wide_nucleus_is_found_too() -> None:
    row = np.zeros(5000, np.float32)
    assert len(nucleus(row, 0.5)) == 2500


@settings(max_examples=50)
@given(rows, st.integers(0, N), st.floats(0.05, 1), st.floats(0, 1), st.floats(0.2, 5))
def test_what_is_drawn_is_what_the_filters_leave(
    row: Row, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    order = np.argsort(-row)[: top_k or N]
    weights = np.exp(row[order].astype(np.float64) - float(row.max()))
    weights /= weights.sum()
    held = np.cumsum(weights) - weights
    left = {
        int(token)
        for token, weight, before in zip(order, weights, held, strict=True)
        if before < top_p + 1e-6 and weight >= min_p * weights[0] * (1 - 1e-6)
    }
    picked = drawn(row, 30, top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    assert set(picked) <= left


def test_filters_come_before_the_temperature() -> None:
    hot = drawn(HALVES, 300, temperature=5.0, top_p=0.7)
    assert set(hot) == {0, 1}
    assert set(drawn(HALVES, 300, temperature=5.0, min_p=0.25)) == {0, 1, 2}
    assert set(drawn(HALVES, 300, temperature=5.0, top_k=2)) == {0, 1}


def test_draws_follow_the_temperature_and_the_seed() -> None:
    plain = drawn(HALVES, 4000, temperature=1.0)
    assert plain == drawn(HALVES, 4000, temperature=1.0)
    assert [plain.count(n) / 4000 for n in range(4)] == pytest.approx(
        [0.5, 0.3, 0.15, 0.05], abs=0.03
    )
    warm = drawn(HALVES, 4000, temperature=2.0)
    roots = np.sqrt([0.5, 0.3, 0.15, 0.05])
    expected = roots / roots.sum()
    assert [warm.count(n) / 4000 for n in range(4)] == pytest.approx(list(expected), abs=0.03)


def test_other_last_bits_of_the_logits_hardly_ever_change_the_draws_of_a_seed() -> None:
    """What a cached prompt or another machine does to them."""
    random = np.random.default_rng(1)
    same = 0
    for seed in range(300):
        row = random.normal(0, 2, 5000).astype(np.float32)
        other = row + random.normal(0, 0.003, 5000).astype(np.float32)
        asked = {"temperature": 1.5, "top_p": 0.99, "seed": seed}
        same += sampler(5000, **asked).pick(row).token == sampler(5000, **asked).pick(other).token
    assert same >= 290  # one number among the sums of the weights: less than half of them


def test_a_token_without_a_chance_is_never_drawn() -> None:
    row = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf], np.float32)
    assert set(drawn(row, 200, temperature=1.0)) == {1, 3}


def test_the_repetition_penalty_is_llama_cpps_over_the_window() -> None:
    row = np.array([2.0, -1.0, 1.5, 1.2, -3.0], np.float32)
    one = sampler(5, (0, 1, 1), repetition_penalty=2.0, repetition_window=2)
    assert one.pick(row).token == 0  # seen 1, 1: token 0 of the prompt is out of the window
    assert one.pick(row).token == 2  # seen 1, 0: 2 / 2 is below 1.5
    assert one.pick(row).token == 3  # seen 0, 2: 1, 0.75 and 1.2
    assert one.pick(row).token == 0  # seen 2, 3: 2, 0.75 and 0.6
    down = np.array([-1.0, -1.5, -9.0], np.float32)
    assert sampler(3, (0,), repetition_penalty=2.0).pick(down).token == 1  # -2 against -1.5
    assert sampler(3, (0,), repetition_penalty=2.0, repetition_window=0).pick(down).token == 0


def test_a_bias_moves_its_token_and_no_other() -> None:
    assert sampler(4).pick(HALVES).token == 0
    assert sampler(4, logit_bias=((0, -1.0),)).pick(HALVES).token == 1
    banned = drawn(HALVES, 200, temperature=1.0, logit_bias=((1, -100.0), (0, -100.0)))
    assert set(banned) == {2, 3}
    forced = sampler(4, logit_bias=((3, 100.0),)).pick(HALVES)
    assert forced.token == 3
    # What is reported is the model's own.
    assert math.isclose(math.exp(forced.log_probability), 0.05, rel_tol=1e-5)
    with pytest.raises(RequestError, match="tokens below 4"):
        sampler(4, logit_bias=((4, 1.0),))
    for bias in ((-1, 0.0), (0, 101.0), (0, math.nan)):
        with pytest.raises(RequestError, match="logit_bias"):
            GenerateOptions(logit_bias=(bias,))


def test_presence_and_frequency_count_what_was_written_alone() -> None:
    row = np.array([1.0, 0.9, 0.8, -9.0], np.float32)
    assert sampler(4, (0, 0), presence_penalty=2.0).pick(row).token == 0
    once = sampler(4, presence_penalty=0.15)
    # 1, 0.9, 0.8; then 0.85, 0.9, 0.8; then 0.85, 0.75, 0.8, however often.
    assert [once.pick(row).token for _ in range(4)] == [0, 1, 0, 0]
    more = sampler(4, frequency_penalty=0.15)
    assert [more.pick(row).token for _ in range(5)] == [0, 1, 0, 2, 1]


def test_ignore_eos_takes_the_ends_out() -> None:
    row = np.array([0.0, 1.0, 5.0], np.float32)
    assert sampler(3).pick(row).token == 2
    assert sampler(3, ignore_eos=True).pick(row).token == 1


@given(rows, st.integers(0, 20))
def test_what_is_reported_is_the_models_own_distribution(row: Row, logprobs: int) -> None:
    one = sampler(
        prompt=(int(row.argmax()),), logprobs=logprobs, repetition_penalty=3.0, temperature=2.0,
        top_k=5, seed=1,
    )  # fmt: skip
    picked = one.pick(row)
    wide = row.astype(np.float64)
    expected = wide - float(wide.max()) - math.log(np.exp(wide - wide.max()).sum())
    assert picked.log_probability == pytest.approx(expected[picked.token], abs=1e-4)
    others = np.delete(wide, picked.token)
    assert picked.gap == pytest.approx(wide[picked.token] - others.max(), abs=1e-4)
    order = np.argsort(-wide)[:logprobs]
    assert [token for token, _ in picked.top] == order.tolist()
    assert [value for _, value in picked.top] == pytest.approx(list(expected[order]), abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(bad: float, temperature: float) -> None:
    row = np.zeros(N, np.float32)
    row[7] = bad
    with pytest.raises(EngineError, match="finite"):
        sampler(temperature=temperature).pick(row)
    with pytest.raises(EngineError, match="finite"):
        sampler(temperature=temperature).pick(np.full(N, -np.inf, np.float32))
    with pytest.raises(EngineError, match="40 logits"):
        sampler().pick(np.zeros(N + 1, np.float32))


@pytest.mark.parametrize("redraws", [0, 8])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_checking_one_by_one_or_all_at_once_is_the_same(
    redraws: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashfeed.engine.sampler._REDRAWS_MAX", redraws)
    row = np.log(np.array([0.4, 0.1, 0.05, 0.05, 0.3, 0.05, 0.02, 0.01, 0.01, 0.01], np.float32))
    picked = [
        constrained("root ::= [b}]", temperature=temperature, seed=n).pick(row).token
        for n in range(800)
    ]
    if temperature == 0:
        assert set(picked) == {1}
    else:
        assert picked.count(1) / 800 == pytest.approx(2 / 3, abs=0.06)
        assert set(picked) == {1, 3}


PIECES = [b"{", b"}", b"a", b"b", b"ab", b"}}", b"", "é".encode()[:1], "é".encode()[1:], b""]


def constrained(grammar: str, **options: Any) -> Sampler:
    chosen = GenerateOptions(grammar=grammar, **options)
    program = compile_options(chosen)
    assert program is not None
    end = len(PIECES) - 1
    return Sampler(chosen, len(PIECES), (), (end,), Grammar(program, Vocabulary(PIECES), (end,)))


def test_greedy_under_a_grammar_is_the_likeliest_allowed_token() -> None:
    row = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], np.float32)
    one = constrained('root ::= "{" [ab]+ "}"')
    assert [one.pick(row).token for _ in range(2)] == [0, 4]
    hurried = row.copy()
    hurried[1] = 99
    assert [one.pick(hurried).token, one.pick(row).token] == [1, 9]
    assert [constrained('root ::= "é"').pick(row).token] == [7]


def test_draws_under_a_grammar_are_those_of_the_allowed_tokens() -> None:
    row = np.log(np.array([0.02, 0.02, 0.3, 0.1, 0.2, 0.3, 0.02, 0.02, 0.01, 0.01], np.float32))
    picked = [
        constrained("root ::= [ab]+", temperature=1.0, seed=n).pick(row).token for n in range(1500)
    ]
    assert [picked.count(token) / 1500 for token in (2, 3, 4)] == pytest.approx(
        [1 / 2, 1 / 6, 1 / 3], abs=0.05
    )
    assert set(picked) == {2, 3, 4}


def test_a_complete_grammar_ends_even_where_ends_are_ignored() -> None:
    row = np.zeros(10, np.float32)
    one = constrained('root ::= "ab"', ignore_eos=True)
    tokens = [one.pick(row).token for _ in range(2)]
    assert tokens == [2, 3]
    assert one.pick(row).token == 9


def test_a_grammar_that_no_token_can_follow_is_said_to_be_so() -> None:
    one = constrained('root ::= "a" "z"')
    row = np.zeros(10, np.float32)
    one.pick(row)
    with pytest.raises(RequestError, match="no token of this model"):
        one.pick(row)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0}, {"temperature": math.nan}, {"top_p": 1.5}, {"top_k": -1},
        {"min_p": -0.1}, {"repetition_penalty": 0.0}, {"repetition_window": 5000},
        {"presence_penalty": 3.0}, {"frequency_penalty": -3.0}, {"logprobs": 21}, {"seed": -1},
        {"stop": ("x",) * 17}, {"stop": ("x" * 257,)}, {"grammar": "x" * 65_537},
        {"grammar": "root ::= [a]", "json_schema": {}},
    ],
)  # fmt: skip
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="expected"):
        GenerateOptions(**wrong)
