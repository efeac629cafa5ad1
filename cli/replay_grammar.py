"""The command line of `flashfeed replay`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PLACE = "TOPIC:PARTITION:OFFSET"


def add_replay(commands: Any, config_help: str) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    replay = commands.add_parser(
        "replay",
        help="ask the standing questions over what the topics hold of the past",
        description="Read the feeds' topics from a time to a time, or from offsets to offsets, "
        "through sessions and an engine of its own, and write every answer and version as JSON "
        "Lines, as Parquet, or to a topic. Live sessions, their topics and the group's offsets "
        "are left alone. The same range gives the same versions, inputs and answers again. Where "
        "questions have outcome rules it prints how right they were. docs/REPLAY.md has more.",
    )
    replay.add_argument("-c", "--config", type=Path, required=True, help=config_help)
    replay.add_argument(
        "--from", dest="since", default="", metavar="TIME", help="2026-11-21T10:00 (UTC), or 2h"
    )
    replay.add_argument("--to", dest="until", default="", metavar="TIME", help="before it; or now")
    replay.add_argument(
        "--from-offset",
        dest="from_offsets",
        action="append",
        default=[],
        metavar=PLACE,
        help="that partition from there, such as candles:0:1200; again for others. Without "
        "--from those alone",
    )
    replay.add_argument(
        "--to-offset",
        dest="to_offsets",
        action="append",
        default=[],
        metavar=PLACE,
        help="that partition to before there; again for others",
    )
    replay.add_argument("--feed", default="", help="only this feed's topics")
    replay.add_argument(
        "--batch", type=int, default=1, metavar="K", help="a session's records in a version (1)"
    )
    replay.add_argument(
        "--as-live",
        action="store_true",
        help="the versions that workers made, from flashfeed.records and the live events; the "
        "range is of flashfeed.data_updated. Compares, and ends with 3 where answers differ",
    )
    replay.add_argument(
        "--out", type=Path, help="a new file for the events, Parquet where it ends so; or stdout"
    )
    replay.add_argument("--out-topic", default="", metavar="TOPIC", help="a topic for the events")
    replay.add_argument(
        "--score", action="store_true", help="the scorecard alone, no events on standard output"
    )
    replay.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="a second configuration over the same range: both scorecards, and a paired test",
    )
    replay.add_argument(
        "--progress", action="store_true", help="tell how far it is where stderr is no terminal"
    )


def run_replay(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from .replay import ReplayOptions, replay

    return replay(
        ReplayOptions(
            config=args.config,
            since=args.since,
            until=args.until,
            from_offsets=tuple(args.from_offsets),
            to_offsets=tuple(args.to_offsets),
            feed=args.feed,
            batch=args.batch,
            as_live=args.as_live,
            out=args.out,
            out_topic=args.out_topic,
            against=args.against,
            score=args.score,
            progress=args.progress,
        )
    )
