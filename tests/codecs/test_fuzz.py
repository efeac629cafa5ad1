from __future__ import annotations

from flashfeed.codecs.presets import preset_names
from flashfeed.codecs.registry import codec_names

from .fuzz_codecs import fuzz


def test_no_message_upsets_a_codec_or_a_preset() -> None:
    result = fuzz(5_000, seed=7)
    # Each still reads some into records, and refuses some with a reason.
    for name in (*codec_names(), *(f"preset {one}" for one in preset_names())):
        outcomes = {key: n for key, n in result.outcomes.items() if key.startswith(f"{name}:")}
        assert outcomes.get(f"{name}: record", 0) >= 3, (name, outcomes)
        refused = sum(outcomes.values()) - outcomes[f"{name}: record"]
        assert refused >= 3, (name, outcomes)
