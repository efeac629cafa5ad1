"""Only names of the configuration are labels."""

from __future__ import annotations

import msgspec

from flashfeed.agents.metric_names import MetricNames
from flashfeed.models.config import Config

CONFIG = msgspec.convert(
    {
        "feeds": {"candles": {"topics": ["a"], "preset": "cryptofeed", "template": "market"}},
        "templates": {
            "market": {
                "type": "ohlcv",
                "tenant": "acme",
                "flash": [
                    {"name": "trend", "query": "Up?", "choices": ["yes", "no"]},
                    {"name": "last", "query": "What is the last close?"},
                ],
            }
        },
    },
    Config,
)
NAMES = MetricNames.of(CONFIG, ["bob"])


def test_names_of_the_configuration_are_their_own() -> None:
    assert [NAMES.tenant(one) for one in ("acme", "bob", "")] == ["acme", "bob", ""]
    assert [NAMES.feed(one) for one in ("candles", "")] == ["candles", ""]
    assert [NAMES.query(one) for one in ("trend", "last")] == ["trend", "last"]


def test_what_somebody_made_up_is_other() -> None:
    assert NAMES.tenant("mallory") == NAMES.feed("mine") == NAMES.query("secret") == "other"


def test_a_part_of_a_tenant_is_the_whole_tenant() -> None:
    from flashfeed.agents.tenancy import PART_SEPARATOR

    assert NAMES.tenant(f"bob{PART_SEPARATOR}project") == "bob"


def test_an_answer_is_a_label_where_it_is_one_of_the_choices() -> None:
    assert NAMES.value("trend", "yes") == "yes"
    assert NAMES.value("trend", "account 4711") == "other"  # a tenant's question of that name
    assert NAMES.value("last", "account 4711") == ""
    assert NAMES.value("secret", "yes") == ""
