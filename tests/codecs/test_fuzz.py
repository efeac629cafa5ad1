from __future__ import annotations

from .fuzz_codecs import fuzz


def test_no_message_upsets_a_codec() -> None:
    result = fuzz(20_000, seed=7)
    assert sum(result.outcomes.values()) == 20_000
    # Each codec still reads some, and refuses some with a reason.
    for name in {outcome.split(":")[0] for outcome in result.outcomes}:
        assert result.outcomes[f"{name}: read"] > 20, result.outcomes
