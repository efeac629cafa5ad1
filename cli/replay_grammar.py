"""The command line of `flashfeed replay`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_replay(commands: Any, config_help: str) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    replay = commands.add_parser(
        "replay",
        help="ask the standing questions over what the feeds' topics hold of the past",
        description="Read the feeds' topics from a time to a time, through sessions and an engine "
        "of its own, and write every answer and version as JSON Lines. Live sessions, their "
        "topics and the group's offsets are left alone. The same range gives the same versions, "
        "inputs and answers again.",
    )
    replay.add_argument("-c", "--config", type=Path, required=True, help=config_help)
    replay.add_argument(
        "--from", dest="since", required=True, metavar="TIME", help="2026-11-21T10:00 (UTC), or 2h"
    )
    replay.add_argument("--to", dest="until", default="", metavar="TIME", help="before it; or now")
    replay.add_argument("--feed", default="", help="only this feed's topics")
    replay.add_argument(
        "--batch", type=int, default=1, metavar="K", help="a session's records in a version"
    )
    replay.add_argument("--out", type=Path, help="a new file for the events; or standard output")


def run_replay(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from .replay import ReplayOptions, replay

    return replay(
        ReplayOptions(args.config, args.since, args.until, args.feed, args.batch, args.out)
    )
