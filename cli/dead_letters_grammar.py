"""The command line of `flashfeed dead-letters`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_dead_letters(commands: Any, config_help: str) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    letters = commands.add_parser(
        "dead-letters",
        help="see what could not be used, and replay it when its feed was mended",
        description="What could not be used lies on the dead-letter topic, with the reason.",
    )
    whats = letters.add_subparsers(dest="what", metavar="COMMAND", required=True)
    meant = _which_letters(config_help)

    listed = whats.add_parser(
        "list", parents=[meant], help="the letters with reason, path, sentence and origin"
    )
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    whats.add_parser("show", parents=[meant], help="letters with their bytes, keys and headers")
    replay = whats.add_parser(
        "replay",
        parents=[meant],
        help="letters through their feeds as they are configured now, to their sessions",
        description="Read letters by the feeds as they are configured now, and send what passes "
        "to its sessions. What was applied meanwhile is left out, so it can be run again; what "
        "fails again is a dead letter again. Ends with code 1 where something failed again.",
    )
    replay.add_argument("--dry-run", action="store_true", help="say what it would do")
    replay.add_argument(
        "--unsure",
        action="store_true",
        help="also letters older than what flashfeed.records still holds, though they may have "
        "been applied",
    )


def _which_letters(config_help: str) -> argparse.ArgumentParser:
    meant = argparse.ArgumentParser(add_help=False)
    meant.add_argument("ids", nargs="*", metavar="ID", help="only these, as list names them")
    meant.add_argument("-c", "--config", type=Path, required=True, help=config_help)
    meant.add_argument("--feed", default="", help="only this feed's")
    meant.add_argument("--reason", default="", help="only of this reason (decode, map, ...)")
    meant.add_argument("--topic", default="", help="only of this source topic")
    meant.add_argument("--since", default="", help="only since 2026-11-21T10:00 (UTC) or 2h ago")
    meant.add_argument("--until", default="", help="only before that")
    return meant


def run_dead_letters(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from .dead_letters import LettersOptions, dead_letters

    return dead_letters(
        LettersOptions(
            config=args.config,
            what=args.what,
            ids=tuple(args.ids),
            feed=args.feed,
            reason=args.reason,
            topic=args.topic,
            since=args.since,
            until=args.until,
            as_json=getattr(args, "json", False),
            dry_run=getattr(args, "dry_run", False),
            unsure=getattr(args, "unsure", False),
        )
    )
