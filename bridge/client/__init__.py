"""flashfeed.client: what flashfeed says, as typed events, for programs downstream.

Two sources, each read with `for` or with `async for`:

    TopicEvents(brokers)              the output topics, over Kafka: everything, in order
    SessionEvents(url, session_id)    one session's events, over HTTP: from now on

Every event comes once: repeats are dropped by the events' ids, and a stored position,
written only after an event was handled, says where to go on after a restart.

    with TopicEvents("localhost:9092", wanted=Wanted(changed=True), position="here.json") as events:
        for event in events:
            print(event.data.session_id, event.data.value)

event.py      an event, and which ones are wanted
position.py   where a reader is: stores, ids that were seen
reader.py     what both sources share: each event once, sync and async
topics.py     over Kafka
session.py    over HTTP
outcomes.py   what answers' true answers turned out to be, sent to flashfeed
errors.py     what a reader raises

Light: neither Faust, the engine nor the bridge is loaded. May import flashfeed.models.
"""

from flashfeed.models.events import DataUpdated, FlashReady
from flashfeed.models.outcomes import OutcomeReport, SentOutcome

from .errors import ClientError, MalformedPosition, PositionLost, Refused, Unreachable
from .event import AnswerRemoved, Data, Event, Wanted
from .outcomes import report_outcome, send_outcomes
from .position import Position, PositionFile, PositionStore
from .session import SessionEvents
from .topics import ANSWERS, DATA_UPDATED, FLASH_READY, TopicEvents

__all__ = [
    "ANSWERS",
    "DATA_UPDATED",
    "FLASH_READY",
    "AnswerRemoved",
    "ClientError",
    "Data",
    "DataUpdated",
    "Event",
    "FlashReady",
    "MalformedPosition",
    "OutcomeReport",
    "Position",
    "PositionFile",
    "PositionLost",
    "PositionStore",
    "Refused",
    "SentOutcome",
    "SessionEvents",
    "TopicEvents",
    "Unreachable",
    "Wanted",
    "report_outcome",
    "send_outcomes",
]
