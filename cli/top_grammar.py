"""The command line of `flashfeed top`, and nothing that takes time to import."""

from __future__ import annotations

import argparse
from typing import Any, Final

URL: Final = "http://127.0.0.1:8080"
KEY_ENV: Final = "FLASHFEED_API_KEY"
METRICS_KEY_ENV: Final = "FLASHFEED_METRICS_KEY"


def add_top(commands: Any) -> None:
    """Add the command to the subparsers of `flashfeed`."""
    top = commands.add_parser(
        "top",
        help="workers live: sessions, lag, tokens a second, answers",
        description="A table of one or several workers, read over HTTP again and again until "
        "Ctrl-C: what is applied, answered and decoded a second, what is behind, and the last "
        "answers of the sessions that were used last. Dim answers are older than their data.",
    )
    top.add_argument(
        "--url", action="append", help=f"a worker's address, once for each ({URL})", metavar="URL"
    )
    top.add_argument(
        "--key-env", default=KEY_ENV, help=f"the environment variable with the key ({KEY_ENV})"
    )
    top.add_argument(
        "--metrics-key-env",
        default=METRICS_KEY_ENV,
        help=f"the variable with the key to the worker's metrics, if any ({METRICS_KEY_ENV})",
    )
    top.add_argument("--rows", type=int, default=12, help="how many sessions are shown (12)")
    top.add_argument("--every", type=float, default=2.0, help="seconds between readings (2)")
    top.add_argument(
        "--once", action="store_true", help="one table, of two readings; 1 where one is missing"
    )


def run_top(args: argparse.Namespace) -> int:
    """Do what the command says; its exit code."""
    from .top import TopOptions, top

    urls = tuple(args.url or (URL,))
    return top(
        TopOptions(urls, args.key_env, args.metrics_key_env, args.rows, args.every, args.once)
    )
