"""The running prior correction: what the model favours whatever the data says, taken off.

A small model asked "bullish or bearish?" says "bullish" to almost anything: the prompt
and the words' own frequencies add a bias to each choice's log-probability. Batch
calibration estimates that bias as the mean over a batch of inputs and subtracts it; no
labels are needed (Zhou et al., "Batch Calibration: Rethinking Calibration for In-Context
Learning and Prompt Engineering", ICLR 2024, arXiv 2309.17249). Here the batch is the
stream, and the mean is of log-probabilities, so that a constant bias cancels exactly:

    score(choice) = log p(choice | context) - w * mean(log p(choice))

- The mean is over the answers before this one; the first answer stays as it is.
- It forgets: from MEMORY_ANSWERS on it is an exponential mean of that length, so that
  a market that turned, or a season, is not held against the model for ever.
- w = count / (count + SHRINK_ANSWERS). Contexts of neighbouring answers share all but
  an item or so, so that a few answers are one observation, not several, and their mean is
  what the data says rather than what the model favours. With 16, half of the bias is
  gone after 16 answers and 98% in the long run.

What it cannot know: on a stream whose true answers are almost all the same it takes that
off too. Such a question is asked with `calibrate = false`, and `raw` always stands beside.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from flashfeed.models.session import Answer, RawAnswer
from flashfeed.models.state import Prior

MEMORY_ANSWERS: Final = 1024
SHRINK_ANSWERS: Final = 16
# Below it (2e-9) a choice is ruled out, and how far must not move the mean.
LOG_PROBABILITY_MIN: Final = -20.0


def correct(answer: Answer, prior: Prior | None) -> tuple[Answer, Prior]:
    """The answer corrected by `prior`, with `raw` beside it, and the prior after it.

    `answer` is one of choices, with the probability of each. A prior of other choices
    counts as none.
    """
    logs = {
        choice: max(math.log(share), LOG_PROBABILITY_MIN) if share > 0 else LOG_PROBABILITY_MIN
        for choice, share in answer.probabilities.items()
    }
    if prior is None or prior.means.keys() != logs.keys():
        prior = Prior(0, dict.fromkeys(logs, 0.0))
    raw = RawAnswer(answer.value, answer.confidence, answer.logit_gap, answer.probabilities)
    corrected = msgspec.structs.replace(answer, raw=raw)
    if prior.count:
        weight = prior.count / (prior.count + SHRINK_ANSWERS)
        scores = {choice: logs[choice] - weight * prior.means[choice] for choice in logs}
        corrected = _chosen(corrected, scores)
    return corrected, _learned(prior, logs)


def _chosen(answer: Answer, scores: dict[str, float]) -> Answer:
    """The answer that the scores give; among equals the first choice."""
    ranked = sorted(scores, key=lambda choice: -scores[choice])
    best, second = scores[ranked[0]], scores[ranked[1]]
    weights = {choice: math.exp(score - best) for choice, score in scores.items()}
    total = math.fsum(weights.values())
    shares = {choice: weight / total for choice, weight in weights.items()}
    return msgspec.structs.replace(
        answer,
        value=ranked[0],
        confidence=shares[ranked[0]],
        logit_gap=best - second,
        probabilities=shares,
    )


def _learned(prior: Prior, logs: dict[str, float]) -> Prior:
    """The prior with one more answer in its mean."""
    count = min(prior.count + 1, MEMORY_ANSWERS)
    means = {choice: mean + (logs[choice] - mean) / count for choice, mean in prior.means.items()}
    return Prior(count, means)
