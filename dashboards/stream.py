"""Stream: the Kafka side."""

from __future__ import annotations

from .panel import (
    ALL_SCOPE,
    FEED_SCOPE,
    WORKER,
    Board,
    Panel,
    Query,
    Row,
    by,
    increase,
    mean,
    or_zero,
    quantile,
    rate,
    total,
)

READ = "flashfeed_records_total"
APPLIED = "flashfeed_applied_records_total"
AGE = "flashfeed_consumer_lag_seconds"
SOURCE = 'topic!~"flashfeed[.].+"'
NEWEST = "flashfeed_partition_last_record_timestamp_seconds"

BOARD = Board(
    "stream",
    "flashfeed / Stream",
    "What comes in from Kafka, what becomes of it, and how far behind it is.",
    (
        Row(
            "In",
            (
                by(
                    "result",
                    "Records by result",
                    "A second: messages read, and of the records in them those mapped to a "
                    "session, skipped by the feed's own rule, or made a dead letter.",
                    "cps",
                    rate(READ, FEED_SCOPE, "result"),
                ),
                by(
                    "feed",
                    "Records by feed",
                    "Source messages read a second, by feed.",
                    "cps",
                    rate(READ, FEED_SCOPE + ',result="read"', "feed"),
                ),
                Panel(
                    "Batch size",
                    "Records of a fetched partition batch: mean, and the size that "
                    "95% stay below. Large batches mean that work is shared well.",
                    "short",
                    (
                        Query(
                            mean("flashfeed_batch_records", FEED_SCOPE),
                            "mean",
                        ),
                        Query(quantile(0.95, "flashfeed_batch_records", FEED_SCOPE), "95% below"),
                    ),
                ),
            ),
        ),
        Row(
            "Behind",
            (
                by(
                    "topic",
                    "Lag",
                    "Records behind the end, of the twenty topics that are furthest behind. It "
                    "grows where the engine is slower than the feed.",
                    "short",
                    f"topk(20, {total('flashfeed_consumer_lag_records', WORKER, 'topic')})",
                ),
                Panel(
                    "Age of the oldest waiting record",
                    "By topic and partition, of the worst ten.",
                    "s",
                    (
                        Query(
                            f"topk(10, max by (topic, partition) ({AGE}{{{WORKER}}}))",
                            "{{topic}}/{{partition}}",
                        ),
                    ),
                ),
                by(
                    "topic",
                    "Silence",
                    "Seconds since the newest record, of the twenty topics that are longest "
                    "silent. A feed that stopped rises steadily.",
                    "s",
                    f"topk(20, time() - max by (topic) ({NEWEST}{{{WORKER},{SOURCE}}}))",
                ),
            ),
        ),
        Row(
            "What became of it",
            (
                by(
                    "feed",
                    "From receipt to answers",
                    "Seconds from a message on flashfeed.records to its answers acknowledged, 95% "
                    "within, by feed (nameless: what was pushed).",
                    "s",
                    quantile(0.95, "flashfeed_receipt_latency_seconds", ALL_SCOPE, "feed"),
                    width=6,
                ),
                by(
                    "result",
                    "Applied to sessions",
                    "Records that came to sessions, a second, by result: "
                    "applied (corrections among them), duplicate, late, correction, dropped or "
                    "coalesced by overflow.",
                    "cps",
                    rate(APPLIED, ALL_SCOPE, "result"),
                    width=6,
                ),
                by(
                    "reason",
                    "Dead letters by reason",
                    "Records that became dead letters, a second.",
                    "cps",
                    or_zero(
                        rate("flashfeed_dead_letters_total", WORKER, "reason") + " > 0", "reason"
                    ),
                    width=6,
                ),
                by(
                    "result",
                    "Candles",
                    "Candles written as lines a second: final ones, and open ones each "
                    "time they changed.",
                    "cps",
                    rate("flashfeed_candles_total", WORKER, "result"),
                    width=6,
                ),
            ),
        ),
        Row(
            "Standing still",
            (
                Panel(
                    "Paused partitions",
                    "paused: feed partitions that wait for a schema or a Sparkplug birth; held "
                    "back: not fetched, since what was fetched is not done; and the records that "
                    "wait in the workers meanwhile.",
                    "short",
                    (
                        Query(total("flashfeed_paused_partitions", WORKER), "paused"),
                        Query(total("flashfeed_held_back_partitions", WORKER), "held back"),
                        Query(total("flashfeed_queued_records", WORKER), "records that wait"),
                    ),
                ),
                by(
                    "why",
                    "Standing still",
                    "Partitions that have records and do not move. silent: not fetched, which the "
                    "worker mends by itself; held: it waits for the engine, a schema or a birth.",
                    "short",
                    total("flashfeed_still_partitions", WORKER, "why"),
                ),
                by(
                    "topic",
                    "Fetched anew",
                    "Times an hour that a silent partition was sought and resumed, by topic.",
                    "short",
                    or_zero(
                        increase("flashfeed_silent_partitions_total", WORKER, "1h", "topic")
                        + " > 0",
                        "topic",
                    ),
                ),
                by(
                    "result",
                    "Schema registry",
                    "Requests a second to the schema registry, by result.",
                    "cps",
                    rate("flashfeed_schema_requests_total", WORKER, "result"),
                    width=12,
                ),
                Panel(
                    "Sparkplug",
                    "Births a second by result, and messages out of their sequence.",
                    "cps",
                    (
                        Query(
                            rate("flashfeed_births_total", WORKER, "result"),
                            "birth {{result}}",
                        ),
                        Query(
                            rate("flashfeed_sparkplug_sequence_gaps_total", WORKER), "sequence gaps"
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
    ),
)
