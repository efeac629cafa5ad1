"""What questions that learn read and write on Kafka for others, for asyncapi.py. Pure. What
only workers read (examples, reservoirs, heads) is not in it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flashfeed.models.config import Config
from flashfeed.models.outcomes import SentOutcome

from .score_events import ScoreRecord

HEAD_KEY: Final = {"type": "string", "description": "tenant/spec/question, the last as hashes."}
_ABOUT: Final[dict[str, str]] = {
    "outcomes": "What an answer's true answer turned out to be. One that cannot be used is a "
    "dead letter. Those that a rule gave or that came over HTTP are here too, with by.",
    "scores": "How right each question's answers were, as it is now.",
}


def learning_schemas(ref_template: str) -> dict[str, dict[str, Any]]:
    """The schemas of the messages, by the types' names."""
    kinds = (SentOutcome, ScoreRecord)
    return msgspec.json.schema_components(kinds, ref_template=ref_template)[1]


def learning_channels(config: Config) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Topic, description and messages of each channel, by its name."""

    def message(name: str, kind: type, key: dict[str, Any] | None) -> dict[str, Any]:
        described: dict[str, Any] = {
            "name": name,
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        }
        if key is not None:
            described["bindings"] = {"kafka": {"key": key, "bindingVersion": "0.5.0"}}
        return {name: described}

    topics = config.topics
    return {
        "outcomes": (topics.outcomes, _ABOUT["outcomes"], message("outcome", SentOutcome, None)),
        "scores": (topics.scores, _ABOUT["scores"], message("score", ScoreRecord, HEAD_KEY)),
    }
