"""A fetched batch becomes messages and dead letters; a bad record never loses a neighbour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from flashfeed.agents.feeds import PACK_RECORDS_MAX, Feed, read_batch
from flashfeed.agents.kafka_writer import MESSAGE_BYTES_MAX
from flashfeed.agents.transport import Batch
from flashfeed.cli.sample_data import candles, cryptofeed_json
from flashfeed.codecs.codec import Outside
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.presets import mapping_spec
from flashfeed.codecs.registry import codec
from flashfeed.models.messages import PackedRecord, Records, decode_message, encode_message
from flashfeed.models.records import make_record
from flashfeed.models.tenant import split_key

OUTSIDE = Outside(read_file=lambda path: Path(path).read_bytes())


class Raw(NamedTuple):
    offset: int
    value: bytes | None
    key: bytes | None = b"candles"
    topic: str = "candles-X"
    partition: int = 3
    timestamp: int = 1_700_000_000_000
    headers: tuple[tuple[str, bytes], ...] = (("trace", b"1"),)


def feed(session: str = "{key}") -> Feed:
    return Feed(
        name="candles",
        template="market",
        type="ohlcv",
        codec=codec("json", {}, OUTSIDE),
        mapping=Mapping(mapping_spec("cryptofeed", {})),
        session_id=lambda key: session.replace("{key}", key),
    )


def batch(*values: bytes | None) -> Batch:
    raws: list[Any] = [Raw(offset, value) for offset, value in enumerate(values, start=100)]
    return Batch("candles-X", 3, 0, raws)


GOOD = [cryptofeed_json("AAPL", row) for row, _ in zip(candles("AAPL"), range(200), strict=False)]


def test_records_are_packed_by_session_in_order_with_their_origin() -> None:
    other = [cryptofeed_json("IBM", row) for row, _ in zip(candles("IBM"), range(2), strict=False)]
    read = read_batch(batch(GOOD[0], other[0], GOOD[1], other[1]), feed())
    assert [session for session, _ in read.messages] == ["NASDAQ:AAPL-USD:1d", "NASDAQ:IBM-USD:1d"]
    apple = read.messages[0][1]
    assert [(one.offset, one.index) for one in apple.records] == [(100, 0), (102, 0)]
    assert (apple.topic, apple.partition, apple.template) == ("candles-X", 3, "market")
    assert apple.records[0].received_ms == 1_700_000_000_000
    assert decode_message(encode_message(apple)) == apple


def test_a_feed_of_a_tenants_template_feeds_the_tenants_sessions() -> None:
    [(key, _)] = read_batch(batch(GOOD[0]), replace(feed(), tenant="acme")).messages
    assert split_key(key) == ("acme", "NASDAQ:AAPL-USD:1d")


def test_a_bad_record_becomes_a_dead_letter_and_its_neighbours_go_on() -> None:
    broken = orjson.loads(GOOD[1])
    broken["close"] = "n/a"
    missing = orjson.loads(GOOD[1])
    del missing["high"]
    values = (GOOD[0], b"{not json", orjson.dumps(broken), orjson.dumps(missing), None, GOOD[2])
    read = read_batch(batch(*values), feed())
    assert sum(len(message.records) for _, message in read.messages) == 2
    assert read.skipped == 1  # the tombstone
    reasons = [(letter.offset, letter.reason, letter.path) for letter in read.dead_letters]
    assert reasons == [
        (101, "decode", "$"),
        (102, "map", "$.close"),
        (103, "map", "$.high"),
    ]
    written = read.dead_letters[1].write("dead")
    headers = dict(written.headers)
    assert (written.key, written.value) == (b"candles", values[2])
    assert headers["trace"] == b"1"
    assert headers["flashfeed_offset"] == b"102"
    assert b'"n/a"' in headers["flashfeed_detail"]


def test_what_is_packed_together_is_far_from_what_a_topic_takes() -> None:
    """Else a message that Kafka refuses would stop its feed."""
    name, number = "\x01" * 200, -(2**53)
    fields = {"src": name, "cat": name, "sev": number, "cnt": number, "timestamp": -1234567890.123}
    make_record("event", fields)  # the longest that there may be
    records = tuple(PackedRecord(2**62, place, 2**62, fields) for place in range(PACK_RECORDS_MAX))
    message = Records(type="event", records=records, topic="t" * 249, template="x" * 200)
    assert len(encode_message(message)) < MESSAGE_BYTES_MAX / 10


def test_a_session_takes_at_most_so_many_records_a_message() -> None:
    read = read_batch(batch(*GOOD[: PACK_RECORDS_MAX + 1]), feed())
    assert [len(message.records) for _, message in read.messages] == [PACK_RECORDS_MAX, 1]


def test_a_session_id_that_cannot_be_is_a_dead_letter() -> None:
    for session in ("", "x" * 201, "a\nb"):
        read = read_batch(batch(GOOD[0]), feed(session))
        assert not read.messages
        assert [letter.path for letter in read.dead_letters] == ["$key"]


def test_a_message_without_a_part_is_a_counted_skip() -> None:
    """No message leaves no trace: a fan-out over nothing counts as one that was skipped."""
    kraken = replace(feed(), mapping=Mapping(mapping_spec("kraken_ohlc", {})))
    read = read_batch(batch(None, b'{"channel":"ohlc","data":[]}'), kraken)
    assert (read.records, read.skipped, read.dead_letters) == (0, 2, [])
