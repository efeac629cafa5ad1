"""The command line of `flashfeed heads`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_heads(commands: Any, config_help: str) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    heads = commands.add_parser(
        "heads",
        help="what questions have learnt, as files",
        description="A head is what a question has learnt from outcomes. As a file it is numbers "
        "alone, no code, and knows its model, its session's spec, its question and choices: a "
        "head of others is refused. Connects to nothing.",
    )
    whats = heads.add_subparsers(dest="what", metavar="COMMAND", required=True)
    listed = whats.add_parser("list", help="the heads in a folder, one a line")
    listed.add_argument("path", type=Path, metavar="FOLDER")
    shown = whats.add_parser("show", help="what a head is of, and what it has learnt")
    shown.add_argument("path", type=Path, metavar="FILE")
    for one in (listed, shown):
        one.add_argument("--json", action="store_true", help="one JSON object a head")
    export = whats.add_parser(
        "export",
        help="learn a head from recorded answers and records, and write it to a file",
        description="Learn as flashfeed score does, from what flashfeed tail --json or flashfeed "
        "replay wrote and the feed's records, and write the question's head to a new file.",
    )
    export.add_argument("--feed", required=True, help="the feed that the records came by")
    export.add_argument(
        "--records", type=Path, required=True, help="a file with the feed's messages, in order"
    )
    export.add_argument(
        "--answers", type=Path, required=True, help="what tail --json or replay wrote"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
    taken = whats.add_parser(
        "import",
        help="take a head into a folder of heads, if it is one of the configured question",
        description="Hold a head's file against the configured model, template and question. "
        "Where they are the same it is copied to the folder, under its question's name; else "
        "the command says what differs and ends with 2.",
    )
    taken.add_argument("path", type=Path, metavar="FILE")
    taken.add_argument("--template", required=True, help="the template that asks the question")
    taken.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    for one in (export, taken):
        one.add_argument("-c", "--config", type=Path, required=True, help=config_help)
        one.add_argument("--question", required=True, help="the question's name")


def run_heads(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from . import heads

    if args.what in ("list", "show"):
        return heads.show(args.path, as_json=args.json)
    if args.what == "export":
        return heads.export(
            args.config, args.feed, args.records, args.answers, args.question, args.out
        )
    return heads.take(args.path, args.config, args.template, args.question, args.to)
