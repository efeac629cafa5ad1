"""Reliability: takeovers, failures, and what clients saw."""

from __future__ import annotations

from .panel import (
    WORKER,
    Board,
    Panel,
    Query,
    Row,
    by,
    increase,
    or_zero,
    rare_quantile,
    rate,
    total,
)

FLASHFEED = 'ALERTS{alertname=~"Flashfeed.+"}'
# They come with a worker's begin, before Prometheus knows it: no increase would see them.
TAKEOVER = f"histogram_quantile(0.95, sum by (le) (flashfeed_takeover_seconds_bucket{{{WORKER}}}))"
BURN = "flashfeed:freshness_errors:ratio_rate"

BOARD = Board(
    "reliability",
    "flashfeed / Reliability",
    "Whether the objective is kept, what failed, and how clients were served.",
    (
        Row(
            "The objective",
            (
                Panel(
                    "Records not fresh",
                    "Share of the records whose answers took longer than 5 "
                    "seconds, of the feed that is worst; the objective lets 5% be late. By "
                    "dashboards/alerts.yml.",
                    "percentunit",
                    (
                        Query(f"max({BURN}5m)", "5 minutes"),
                        Query(f"max({BURN}1h)", "1 hour"),
                        Query(f"max({BURN}6h)", "6 hours"),
                    ),
                ),
                Panel(
                    "End to end check",
                    "Seconds that `flashfeed probe` waited for the answer to a "
                    "known record, 95% within, in the hour before.",
                    "s",
                    (
                        Query(
                            rare_quantile(0.95, "flashfeed_probe_seconds", ""),
                            "95% within",
                        ),
                    ),
                ),
                by(
                    "result",
                    "Known records",
                    "Records that `flashfeed probe` sent, a second: answered in time, or lost.",
                    "cps",
                    rate("flashfeed_probes_total", "", "result"),
                ),
                Panel(
                    "Since the last success",
                    "Seconds since the last known record of each partition was answered in time.",
                    "s",
                    (
                        Query(
                            "time() - max by (partition) "
                            "(flashfeed_probe_last_success_timestamp_seconds)",
                            "partition {{partition}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Alerts",
                    "Alerts that are pending or firing.",
                    "short",
                    (
                        Query(
                            or_zero(f"count by (alertname, alertstate) ({FLASHFEED})", "alertname"),
                            "{{alertname}} {{alertstate}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "Workers",
            (
                by(
                    "state",
                    "Partitions",
                    "Partitions of flashfeed.records, by state. Each is live at one worker.",
                    "short",
                    total("flashfeed_partitions", WORKER, "state"),
                    stacked=True,
                ),
                by(
                    "instance",
                    "Rebalances",
                    "Times in the last hour that a worker was given its partitions anew.",
                    "short",
                    increase("flashfeed_rebalances_total", WORKER, "1h", "instance"),
                ),
                Panel(
                    "Takeover",
                    "Seconds from a partition's assignment to its sessions being "
                    "served, 95% within: of all takeovers since the workers began.",
                    "s",
                    (Query(TAKEOVER, "95% within"),),
                ),
            ),
        ),
        Row(
            "Failures",
            (
                by(
                    "reason",
                    "Writes that failed",
                    "Writes to Kafka a second: refused, too large, or not "
                    "acknowledged (the worker then starts again).",
                    "cps",
                    rate("flashfeed_publish_failures_total", WORKER, "reason"),
                ),
                Panel(
                    "Sessions",
                    "Sessions a second that failed by reason, had their window halved, "
                    "or ended because nothing reached them.",
                    "cps",
                    (
                        Query(
                            or_zero(
                                rate("flashfeed_session_failures_total", WORKER, "reason") + " > 0",
                                "reason",
                            ),
                            "failed {{reason}}",
                        ),
                        Query(rate("flashfeed_window_halvings_total", WORKER), "window halved"),
                        Query(rate("flashfeed_idle_sessions_total", WORKER), "idle, ended"),
                    ),
                ),
                Panel(
                    "Readers let go",
                    "Clients a second that did not read and were cut off, and "
                    "readers of events that fell a whole queue behind.",
                    "cps",
                    (
                        Query(
                            rate("flashfeed_bridge_slow_clients_dropped_total", WORKER, "kind"),
                            "{{kind}}",
                        ),
                        Query(rate("flashfeed_subscribers_dropped_total", WORKER), "subscribers"),
                    ),
                ),
            ),
        ),
        Row(
            "The bridge",
            (
                by(
                    "code",
                    "Requests by code",
                    "Requests and WebSockets that ended, a second, by code.",
                    "cps",
                    rate("flashfeed_bridge_requests_total", WORKER, "code"),
                    width=6,
                ),
                by(
                    "route",
                    "Requests by route",
                    "Requests a second of the ten busiest routes.",
                    "cps",
                    f"topk(10, {rate('flashfeed_bridge_requests_total', WORKER, 'route')})",
                    width=6,
                ),
                by(
                    "kind",
                    "Streams open",
                    "Event streams and WebSockets that are open.",
                    "short",
                    total("flashfeed_bridge_streams", WORKER, "kind"),
                    width=6,
                ),
                Panel(
                    "Generations",
                    "Generations a second that wrote something.",
                    "cps",
                    (Query(rate("flashfeed_generations_total", WORKER), "generations"),),
                    width=6,
                ),
            ),
        ),
    ),
)
