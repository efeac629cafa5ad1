"""The events of a session's version, built from its head alone. Pure: the same head
gives the same bytes, so a recovered session publishes its last version again as it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flashfeed.heads.verdict import is_news
from flashfeed.models.events import DataUpdated, FlashReady, iso_time
from flashfeed.models.state import Head


def flash_events(head: Head, only: Sequence[int] | None = None) -> list[FlashReady]:
    """A flash_ready for each answer of the head's version (or for the ids in `only`)."""
    queries = {query.id: query for query in head.spec.flash}
    events = []
    for answer in head.answers:
        query = queries.get(answer.query_id)
        if query is None or (only is not None and answer.query_id not in only):
            continue
        previous = head.previous.get(answer.query_id)
        events.append(
            FlashReady(
                session_id=head.session_id,
                type=head.spec.type,
                id=query.id,
                name=query.label,
                query=query.query,
                value=answer.value,
                confidence=answer.confidence,
                logit_gap=answer.logit_gap,
                probabilities=answer.probabilities,
                previous=previous,
                changed=previous != answer.value,
                data_version=head.version,
                event_time=iso_time(head.event_time),
                evaluated_at=iso_time(answer.evaluated_ms / 1000) or "",
                origins=head.origins,
                records_first=head.version_first,
                records_last=head.version_offset,
                answered_by=answer.answered_by,
                raw=answer.raw,
                abstained=answer.abstained,
                held=answer.held,
                learned=answer.learned,
            )
        )
    return events


def news(head: Head, answers: Iterable[FlashReady]) -> list[FlashReady]:
    """Those of the version's answers that go out."""
    queries = {query.id: query for query in head.spec.flash}
    return [
        one
        for one in answers
        if is_news(
            queries[one.id], one.value, one.abstained, one.previous, one.id in head.abstained_before
        )
    ]


def updated_event(head: Head) -> DataUpdated:
    """The data_updated of the head's version."""
    return DataUpdated(
        session_id=head.session_id,
        type=head.spec.type,
        data_version=head.version,
        data_count=head.version_records,
        tokens=head.ingest_tokens,
        decoded_tokens=head.decoded_tokens,
        n_tokens=head.tokens,
        update_ms=head.update_ms,
        pending=head.pending,
        event_time=iso_time(head.event_time),
        updated_at=iso_time(head.evaluated_ms / 1000) or "",
        origins=head.origins,
        records_first=head.version_first,
        records_last=head.version_offset,
    )
