"""The command line of `flashfeed heads`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_heads(commands: Any, config_help: str) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    heads = commands.add_parser(
        "heads",
        help="what questions have learnt, in the group and as files",
        description="A head is what a question has learnt from outcomes. As a file it is numbers "
        "alone, no code, and knows its model, its session's spec, its question and choices: a "
        "head of others is refused.",
    )
    whats = heads.add_subparsers(dest="what", metavar="COMMAND", required=True)
    listed = whats.add_parser("list", help="the heads in a folder, or of the group, one a line")
    listed.add_argument("path", type=Path, metavar="FOLDER", nargs="?")
    listed.add_argument("-c", "--config", type=Path, help=config_help)
    shown = whats.add_parser("show", help="what a head is of, and what it has learnt")
    shown.add_argument("path", type=Path, metavar="FILE")
    for one in (listed, shown):
        one.add_argument("--json", action="store_true", help="one JSON object a head")
    export = whats.add_parser(
        "export",
        help="write a head of the group to a file, or one learnt from recorded answers",
        description="Write a question's head to a new file: the group's, from flashfeed.heads; or "
        "with --feed, --records and --answers one that learns, as flashfeed score does, from "
        "what flashfeed tail --json or flashfeed replay wrote and the feed's records.",
    )
    export.add_argument("--feed", default="", help="the feed that the records came by")
    export.add_argument("--records", type=Path, help="a file with the feed's messages, in order")
    export.add_argument("--answers", type=Path, help="what tail --json or replay wrote")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
    taken = whats.add_parser(
        "import",
        help="take a head into the group, or a folder, if it is one of the configured question",
        description="Hold a head's file against the configured model, template and question. "
        "Where they are the same its examples go to flashfeed.examples, and the group learns them "
        "anew; or with --to it is copied to a folder. Else the command says what differs and ends "
        "with 2. A head that the group has already is left alone.",
    )
    taken.add_argument("path", type=Path, metavar="FILE")
    taken.add_argument("--template", required=True, help="the template that asks the question")
    taken.add_argument("--to", type=Path, metavar="FOLDER")
    for one in (export, taken):
        one.add_argument("-c", "--config", type=Path, required=True, help=config_help)
        one.add_argument("--question", required=True, help="its name, or a head's key")


def run_heads(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from . import heads

    if args.what == "list" and args.config is not None:
        return heads.show_group(args.config, as_json=args.json)
    if args.what in ("list", "show"):
        return heads.show(args.path or Path(), as_json=args.json)
    if args.what == "export":
        recorded = heads.recorded(args.feed, args.records, args.answers)
        return heads.export(args.config, args.question, args.out, recorded)
    return heads.take(args.path, args.config, args.template, args.question, args.to)
