"""Who is told of alerts: the receivers of an Alertmanager, and the same rules in less time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson

DURATION = re.compile(
    r"(?<=\[)\d+[smh](?=[\]:])|(?<=[smh]:)\d+[smh](?=\])|(?<=for: )\d+[smh]$", re.M
)
"""A rule's windows, and how long an alert waits until it fires."""
UNIT_S = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> int:
    """Of a duration as Prometheus writes it."""
    return int(duration[:-1]) * UNIT_S[duration[-1]]


def shortened(rules: str, by: int) -> str:
    """The rules with every window and every `for` divided; nothing else is touched. Raises
    ValueError where one is no multiple of it."""

    def shorter(found: re.Match[str]) -> str:
        whole, rest = divmod(seconds(found[0]), by)
        if rest:
            raise ValueError(f"{found[0]} is no multiple of {by} seconds")
        return f"{whole}s"

    return DURATION.sub(shorter, rules)


class Told(NamedTuple):
    """One alert of a notification: which receiver was told, and that it fires or is over."""

    at: float
    receiver: str
    status: str
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """The alert's."""
        return self.labels["alertname"]


class Pager:
    """Alertmanager's webhooks, one path a receiver; listens on a port of its own until `stop`."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        pager = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                pager.take(self.path.strip("/"), body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def take(self, receiver: str, body: dict[str, Any]) -> None:
        """A notification came."""
        now = time.time()
        self.told += [Told(now, receiver, one["status"], one["labels"]) for one in body["alerts"]]

    def statuses(self, name: str) -> list[str]:
        """What was told of an alert, in order."""
        return [one.status for one in self.told if one.name == name]

    def open(self) -> set[str]:
        """The alerts that fire, as far as anybody was told."""
        last = {tuple(sorted(one.labels.items())): one for one in self.told}
        return {one.name for one in last.values() if one.status == "firing"}

    def config(self, given: dict[str, Any]) -> dict[str, Any]:
        """An Alertmanager's configuration whose receivers are ours, told at once."""
        soon = {"group_wait": "1s", "group_interval": "1s"}
        receivers = [
            {"name": one["name"], "webhook_configs": [{"url": f"{self.url}/{one['name']}"}]}
            for one in given["receivers"]
        ]
        return {**given, "route": {**given["route"], **soon}, "receivers": receivers}


class AlertStates:
    """The states that Prometheus shows each alert in, looked at again and again until `stop`."""

    def __init__(self, look: Callable[[], list[dict[str, Any]]]) -> None:
        self.seen: dict[str, list[str]] = {}
        """By alert's name, without repeats in a row."""
        self._look = look
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.3):
            for one in self._look():
                states = self.seen.setdefault(one["labels"]["alertname"], [])
                if states[-1:] != [one["state"]]:
                    states.append(one["state"])
