"""Outcomes to flashfeed: what an answer's true answer turned out to be.

    await report_outcome(url, "AAPL", OutcomeReport("trend", "bullish", data_version=41))
    await send_outcomes("localhost:9092", [SentOutcome("trend", "bullish", 41, session_id="AAPL")])

Over HTTP what is wrong with one is said at once; over Kafka it is a dead letter. Either way
the same outcome again does nothing, so that whoever is not sure sends it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from flashfeed.models.outcomes import OutcomeReport, SentOutcome, outcome_key

from .errors import Refused, Unreachable

TOPIC: Final = "flashfeed.outcomes"
ATTEMPTS: Final = 5
RETRY_FIRST_S: Final = 0.2
TIMEOUT_S: Final = 40.0
AGAIN: Final = frozenset({408, 424, 425, 429, 500, 502, 503, 504})


async def report_outcome(
    url: str,
    session_id: str,
    outcome: OutcomeReport,
    *,
    api_key: str = "",
    client: httpx.AsyncClient | None = None,
) -> None:
    """Report an outcome at the bridge at `url`; returns when it is applied, now or before.

    What may come through later is tried ATTEMPTS times. Raises Refused (404: no such answer
    waits any more; 409: another outcome of it was applied), Unreachable.
    """
    place = f"{url.rstrip('/')}/flashfeed/v1/sessions/{quote(session_id, safe='')}/outcomes"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    body = {key: one for key, one in msgspec.to_builtins(outcome).items() if key in _REPORTED}
    own = client or httpx.AsyncClient(timeout=TIMEOUT_S)
    try:
        await _post(own, place, headers, body)
    finally:
        if client is None:
            await own.aclose()


async def _post(
    client: httpx.AsyncClient, place: str, headers: dict[str, str], body: dict[str, Any]
) -> None:
    why: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_FIRST_S * 2**attempt)
        try:
            response = await client.post(place, json=body, headers=headers)
        except httpx.TransportError as error:
            why = Unreachable(f"{place}: no connection: {error!r}")
            continue
        if response.is_success:
            return
        why = Refused(f"{place}: {response.status_code}: {_reason(response)}", response.status_code)
        if response.status_code not in AGAIN:
            break
    assert why is not None
    raise why


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:1000]


_REPORTED: Final = frozenset(OutcomeReport.__struct_fields__)


async def send_outcomes(
    brokers: str, outcomes: Iterable[SentOutcome], *, topic: str = TOPIC, **kafka: Any
) -> None:
    """Write outcomes to Kafka; returns when all are acknowledged. `kafka` are aiokafka's own
    settings of a producer. Raises RequestError for a session id or tenant that is none."""
    from aiokafka import AIOKafkaProducer

    values = [(outcome_key(one).encode(), msgspec.json.encode(one)) for one in outcomes]
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all", **kafka) as producer:
        sent = [await producer.send(topic, value, key=key) for key, value in values]
        await asyncio.gather(*sent)
