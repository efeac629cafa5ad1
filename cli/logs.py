"""How a worker's log is written: one JSON object a line, or a sentence a line for a person.

A call says what its event concerns in `extra`, by the names of FIELDS. In JSON they are
fields of their own; the sentence reads the same in both formats.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from flashfeed.models.config import LogConfig
from flashfeed.models.trace_context import TraceContext

FIELDS: Final = ("feed", "topic", "partition", "offset", "session", "trace_id", "span_id")
TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_CHATTY: Final = ("aiokafka", "faust", "mode", "uvicorn", "flashfeed.agents.transport")
"""Their INFO is a line a rebalance step, or a request."""
_TELLING: Final = ("aiokafka.conn", "httpcore", "httpx", "websockets")
"""What they say below WARNING has secrets in it: SASL passwords, the headers of requests
that are passed on, signed URLs. It is written at no level."""
_LINE_BREAKERS: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What JSON lets stand, and a terminal, a reader of lines or UTF-8 does not."""

log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC, milliseconds), level, logger, message, those
    of FIELDS that the call gives, and an exception's traceback as one string. Pure."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        made = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": made.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        # What is not ASCII stands as it is: a sentence is found by the words it has.
        return _LINE_BREAKERS.sub(_escaped, json.dumps(line, ensure_ascii=False, default=str))


def set_up(config: LogConfig, verbose: bool = False) -> None:
    """Write the log to stderr as configured; `verbose` is level debug. Where somebody set
    logging up before, what they made stays."""
    level = logging.DEBUG if verbose else logging.getLevelNamesMapping()[config.level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if _is_json(config) else logging.Formatter(TEXT))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
    for name in _CHATTY:
        chatty = logging.WARNING if level > logging.DEBUG else level
        logging.getLogger(name).setLevel(max(level, chatty))
    for name in _TELLING:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def show_traces(current: Callable[[], TraceContext | None]) -> None:
    """Give each line the ids of the span that is active where it is written."""

    def add_ids(record: logging.LogRecord) -> bool:
        active = current()
        if active is not None:
            record.trace_id, record.span_id = active.trace_id, active.span_id
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(add_ids)


def _is_json(config: LogConfig) -> bool:
    return config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a call whose arguments do not fit: what it wanted to say, all the same
        return f"{record.msg} {record.args}"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    error = failure.exc_value
    if error is None:
        return
    name = failure.thread.name if failure.thread is not None else "gone"
    told: tuple[type[BaseException], BaseException, TracebackType | None]
    told = (failure.exc_type, error, failure.exc_traceback)
    log.error("the thread %s failed", name, exc_info=told)
