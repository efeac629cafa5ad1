"""The command line of `flashfeed targets`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_targets(commands: Any, config_help: str) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    targets = commands.add_parser(
        "targets",
        help="the group's workers as a service-discovery file for Prometheus",
        description="Print the addresses of the group's workers, from flashfeed.owners, as JSON "
        "for Prometheus' file_sd_configs. With --out and --every the file is kept up to date.",
    )
    targets.add_argument("-c", "--config", type=Path, required=True, help=config_help)
    targets.add_argument("--out", type=Path, metavar="FILE", help="write it there instead")
    targets.add_argument("--every", type=float, default=0.0, help="seconds from writing to writing")


def run_targets(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from .targets import TargetsOptions, targets

    return targets(TargetsOptions(args.config, args.out, args.every))
