"""A dead letter has room in Kafka, whatever record it is of."""

from __future__ import annotations

from flashfeed.agents.dead_letters import BESIDE_BYTES_MAX, VALUE_BYTES_MAX, DeadLetter
from flashfeed.agents.kafka_writer import RECORD_BYTES_MAX


def test_a_letter_of_any_record_has_room() -> None:
    headers = [(f"h{number}", b"y" * 9_000) for number in range(100)]
    letter = DeadLetter(
        "t", 0, 7, "map", "$" * 5000, "d" * 5000, b"k" * 90_000, b"x" * 1_000_000, headers
    )
    write = letter.write("letters")
    size = len(write.key or b"") + len(write.value or b"")
    size += sum(len(name) + len(value) for name, value in write.headers)
    assert size < RECORD_BYTES_MAX - 20_000
    assert len(write.value or b"") == VALUE_BYTES_MAX
    assert len(write.key or b"") == BESIDE_BYTES_MAX
    named = dict(write.headers)
    assert (
        named["flashfeed_left_out_bytes"]
        == str(90_000 + sum(2 + 9_000 for _ in headers) + 90).encode()
    )


def test_a_letter_keeps_what_has_room() -> None:
    headers = [("trace", b"1")]
    write = DeadLetter("t", 0, 7, "map", "$", "d", b"k", b"x", headers).write("letters")
    assert (write.key, write.value, write.headers[0]) == (b"k", b"x", ("trace", b"1"))
    assert "flashfeed_left_out_bytes" not in dict(write.headers)
