"""A feed of glucose readings and a question whose truth the last line says, as configuration."""

from __future__ import annotations

_FEED = """
[feeds.cgm]
topics = ["cgm"]
template = "sensor"
model = "iot"
session = "cgm"
key = "n"
map = { sid = "n", val = "v", hi = "h" }
time = "t:s"

[templates.sensor]
type = "iot"
window = { items = 6 }

[[templates.sensor.flash]]
name = "high"
query = "Does the last line say high?"
choices = ["yes", "no"]
"""
_RULE = """
[templates.sensor.outcomes.high]
after = "0 records"
label = "yes if value > 140 else no"
"""


def glucose_feed(*, learns: bool) -> str:
    """The tables of the feed `cgm`, its template and the rule; whether its question `learns`."""
    return f"{_FEED}learn = {str(learns).lower()}\n{_RULE}"
