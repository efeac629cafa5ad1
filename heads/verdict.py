"""What is made of an answer before it goes out: does it change, is it sure enough, is it news?

In this order:

hysteresis      The answer before stands until another choice leads it by `hysteresis`:
                p(other) - p(standing) >= hysteresis. Of two choices that is a Schmitt trigger
                on their probability, with the thresholds (1 +- hysteresis) / 2 (O. H. Schmitt,
                "A thermionic trigger", Journal of Scientific Instruments 15, 1938): what
                hovers about a half does not flicker. An answer that only so is the old one is
                `held`; its `confidence` is its own choice's, and so may be below another's.
min_confidence  An answer that is less sure is `abstained`. It goes out with all it has, for
                who wants it: a consumer that acts on answers passes it over.
publish         "changes": the answer goes out where its value or its abstaining differs from
                the answer before, and the first one always.

The answer before is the one at the data version before, abstained or not, and stands in the
session's head (models/state.py): a takeover and a replay go on from there (inv. 8).
"""

from __future__ import annotations

import msgspec

from flashfeed.models.session import Answer, FlashQuery, RawAnswer


def judged(answer: Answer, query: FlashQuery, before: Answer | None) -> Answer:
    """The answer as it is published; `before` is the one before it, None where there is
    none. Its probabilities, `logit_gap` and `raw` stay as they were."""
    if query.hysteresis and before is not None:
        answer = _held(answer, before.value, query.hysteresis)
    abstained = answer.confidence < query.min_confidence
    return msgspec.structs.replace(answer, abstained=abstained)


def is_news(
    query: FlashQuery, value: str, abstained: bool, before: str | None, abstained_before: bool
) -> bool:
    """Whether an answer goes out; `before` is the value of the one before, None: none."""
    if query.publish == "all":
        return True
    return value != before or abstained != abstained_before


def _held(answer: Answer, standing: str, hysteresis: float) -> Answer:
    """The answer, or the standing one with its probability where that is not overtaken."""
    shares = answer.probabilities
    if standing == answer.value or standing not in shares:
        return answer
    if shares[answer.value] - shares[standing] >= hysteresis:
        return answer
    raw = answer.raw
    if raw is None:
        raw = RawAnswer(answer.value, answer.confidence, answer.logit_gap, shares)
    return msgspec.structs.replace(
        answer, value=standing, confidence=shares[standing], held=True, raw=raw
    )
