"""Engine: the device side."""

from __future__ import annotations

from .panel import (
    ALL_SCOPE,
    RATE,
    WORKER,
    Board,
    Panel,
    Query,
    Row,
    by,
    per_worker,
    quantile,
    quantiles,
    rare_quantile,
    rate,
    share,
    total,
)

BOARD = Board(
    "engine",
    "flashfeed / Engine",
    "What the device does: tokens, passes, who waits, and who is resident.",
    (
        Row(
            "Work",
            (
                by(
                    "kind",
                    "Tokens by kind",
                    "Tokens decoded a second. ingest: new data; flash: questions "
                    "and their answers; generate: what somebody reads; background: prefixes, next "
                    "windows, sessions that come back; embed: texts for their vectors.",
                    "cps",
                    rate("flashfeed_engine_tokens_total", WORKER, "kind"),
                    stacked=True,
                ),
                by(
                    "kind",
                    "Device busy",
                    "Share of a worker's time inside llama_decode, by kind; of all that are "
                    "chosen, on average. At 100% they are full: lag will grow.",
                    "percentunit",
                    per_worker(rate("flashfeed_engine_decode_seconds_total", WORKER, "kind")),
                    stacked=True,
                ),
                by(
                    "kind",
                    "Tokens a device second",
                    "How fast the device decodes while it does.",
                    "short",
                    share(
                        rate("flashfeed_engine_tokens_total", WORKER, "kind"),
                        rate("flashfeed_engine_decode_seconds_total", WORKER, "kind"),
                    ),
                ),
                by(
                    "kind",
                    "Forward pass",
                    "Seconds of a pass that 95% stay within, by the kind of work that led it.",
                    "s",
                    quantile(0.95, "flashfeed_engine_step_seconds", WORKER, "kind"),
                ),
                Panel(
                    "Update",
                    "An update in the engine, from its call to its last answer, waiting included.",
                    "s",
                    quantiles("flashfeed_update_seconds", ALL_SCOPE),
                ),
                Panel(
                    "Generations",
                    "Seconds to the first token, and from token to token, that 95% stayed within "
                    "in the hour before.",
                    "s",
                    (
                        Query(
                            rare_quantile(0.95, "flashfeed_first_token_seconds", WORKER),
                            "first token",
                        ),
                        Query(
                            rare_quantile(0.95, "flashfeed_next_token_seconds", WORKER),
                            "next token",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Who waits",
            (
                by(
                    "kind",
                    "Jobs",
                    "Jobs that wait for the engine or run in it, by kind.",
                    "short",
                    total("flashfeed_engine_jobs", WORKER, "kind"),
                ),
                by(
                    "kind",
                    "Wait for a turn",
                    "Seconds from a job's coming to its first pass that 95% stay within, by kind.",
                    "s",
                    quantile(0.95, "flashfeed_engine_wait_seconds", WORKER, "kind"),
                ),
                Panel(
                    "Generated tokens",
                    "Tokens written for somebody to read, a second.",
                    "cps",
                    (Query(rate("flashfeed_generated_tokens_total", WORKER), "tokens"),),
                ),
            ),
        ),
        Row(
            "Who is resident",
            (
                by(
                    "state",
                    "Sessions by state",
                    "resident: in the KV cache; evicted: gave up its seats, "
                    "comes back when it is used; rebuilding: on its way.",
                    "short",
                    total("flashfeed_engine_sessions", WORKER, "state"),
                    stacked=True,
                ),
                by(
                    "instance",
                    "KV cells in use",
                    "Share of the cells of all KV caches that hold a token.",
                    "percentunit",
                    share(
                        total("flashfeed_engine_kv_cells_used", WORKER, "instance"),
                        total("flashfeed_engine_kv_cells", WORKER, "instance"),
                    ),
                    maximum=1,
                ),
                by(
                    "instance",
                    "Seats taken",
                    "Share of the resident sequences that there may be. At 100% a "
                    "session that comes evicts one that is idle.",
                    "percentunit",
                    share(
                        total("flashfeed_engine_seats", WORKER, "instance"),
                        total("flashfeed_engine_seats_limit", WORKER, "instance"),
                    ),
                    maximum=1,
                ),
                Panel(
                    "Evictions and returns",
                    "Sessions a second that gave up their seats, and that "
                    "came back: from a snapshot, or decoded again.",
                    "cps",
                    (
                        Query(rate("flashfeed_engine_evictions_total", WORKER), "evicted"),
                        Query(
                            rate("flashfeed_engine_restores_total", WORKER, "source"),
                            "back by {{source}}",
                        ),
                    ),
                ),
                by(
                    "result",
                    "Snapshots",
                    "KV snapshots a second: saved, refused because they did not fit "
                    "their session any more, skipped because the disk was slow.",
                    "cps",
                    rate("flashfeed_engine_snapshots_total", WORKER, "result"),
                ),
                Panel(
                    "Memory",
                    "Bytes of weights and KV caches by model, and the bound of all KV caches.",
                    "bytes",
                    (
                        Query(
                            total("flashfeed_model_weights_bytes", WORKER, "model"),
                            "{{model}} weights",
                        ),
                        Query(total("flashfeed_model_kv_bytes", WORKER, "model"), "{{model}} KV"),
                        Query(total("flashfeed_engine_kv_bytes_limit", WORKER), "KV bound"),
                    ),
                ),
            ),
        ),
        Row(
            "Machine",
            (
                by(
                    "instance",
                    "Process CPU",
                    "Cores that a worker uses.",
                    "short",
                    f'rate(process_cpu_seconds_total{{job="flashfeed",{WORKER}}}[{RATE}])',
                ),
                by(
                    "instance",
                    "Process memory",
                    "Resident bytes of a worker.",
                    "bytes",
                    f'process_resident_memory_bytes{{job="flashfeed",{WORKER}}}',
                ),
                Panel(
                    "GPU",
                    "Share of the last moments in which a GPU computed, and of its memory "
                    "that is used. Empty where there is none.",
                    "percentunit",
                    (
                        Query(f"flashfeed_gpu_busy_ratio{{{WORKER}}}", "{{instance}} {{gpu}} busy"),
                        Query(
                            share(
                                total("flashfeed_gpu_memory_used_bytes", WORKER, "instance, gpu"),
                                total("flashfeed_gpu_memory_bytes", WORKER, "instance, gpu"),
                            ),
                            "{{instance}} {{gpu}} memory",
                        ),
                    ),
                    maximum=1,
                ),
                *(
                    Panel(
                        title,
                        description,
                        "short",
                        (Query(f"{name}{{{WORKER}}}"),),
                        kind="table",
                        labels_only=True,
                    )
                    for title, description, name in (
                        ("Builds", "What each worker is.", "flashfeed_build_info"),
                        ("Models", "The models that each has loaded.", "flashfeed_model_info"),
                        ("Devices", "What each can compute on.", "flashfeed_device_info"),
                    )
                ),
            ),
        ),
    ),
)
