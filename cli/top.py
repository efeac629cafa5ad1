"""`flashfeed top`: the sessions, lag, tokens a second and answers of workers, in a terminal.

It reads what anybody with the key may: `/metrics`, the sessions' list, and the answers of the
sessions that it shows. With the key to the worker's metrics, the figures are all tenants'.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx
from rich.console import Console
from rich.live import Live

from flashfeed.models.errors import ConfigError

from .top_figures import Figures, SessionRow, answers, figures, newest, session_rows
from .top_table import Seen, View, draw

TIMEOUT_S: Final = 5.0
REST: Final = 4.0
"""It waits that many times as long as a reading took, so that to be watched costs little."""


class TopOptions(NamedTuple):
    """Which workers, by the keys of which variables, how many sessions are shown, seconds
    between readings."""

    urls: tuple[str, ...]
    key_env: str
    metrics_key_env: str
    rows: int
    every_s: float
    once: bool


def top(options: TopOptions) -> int:
    """Show the table until stopped, or once: 1 where a worker did not answer then."""
    if options.every_s <= 0 or options.rows < 0:
        raise ConfigError("--every: expected seconds above 0; --rows: expected 0 or more")
    for url in options.urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url: expected http://HOST:PORT or https://HOST:PORT, got {url!r}")
    console = Console()
    if not options.once and not console.is_terminal:
        raise ConfigError("the output is no terminal; try: flashfeed top --once")
    try:
        return asyncio.run(_top(options, console))
    except KeyboardInterrupt:  # how one leaves it
        return 0


async def _top(options: TopOptions, console: Console) -> int:
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
        key = os.environ.get(options.key_env, "")
        metrics_key = os.environ.get(options.metrics_key_env, "")
        workers = [WorkerReader(http, url.rstrip("/"), key, metrics_key) for url in options.urls]
        if options.once:
            await read_all(workers, 0)
            await asyncio.sleep(options.every_s)
            view = await read_all(workers, options.rows)
            console.print(draw(view))
            return int(any(one.now is None for one in view.workers))
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                live.update(draw(await read_all(workers, options.rows)), refresh=True)
                took = time.monotonic() - began
                await asyncio.sleep(max(options.every_s - took, REST * took))


class WorkerReader:
    """Reads one worker, and remembers its last figures."""

    def __init__(self, http: httpx.AsyncClient, url: str, key: str, metrics_key: str = "") -> None:
        self._http = http
        self.url = url
        self._key = {"Authorization": f"Bearer {key}"} if key else {}
        self._metrics_key = {"Authorization": f"Bearer {metrics_key}"} if metrics_key else self._key
        self._last: Figures | None = None

    async def read(self) -> tuple[Seen, list[SessionRow]]:
        """Its figures and sessions, or why there are none. Raises nothing."""
        before = self._last
        try:
            page = _good(
                await self._http.get(f"{self.url}/metrics", headers=self._metrics_key)
            ).text
            self._last = now = figures(page, time.monotonic())
            rows = session_rows(await self._get("/v1/sessions"))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = str(error) or type(error).__name__
        except (ValueError, KeyError, TypeError):
            problem = "this is no flashfeed worker: its answers cannot be read"
        else:
            return Seen(self.url, now, before), rows
        self._last = None
        return Seen(self.url, None, problem=problem), []

    async def with_answers(self, row: SessionRow) -> SessionRow:
        """The session with its answers; without where it is gone, or cannot be asked now."""
        try:
            body = await self._get(f"/v1/sessions/{quote(row.session_id, safe='')}/flash")
            return row._replace(answers=answers(body))
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return row

    async def _get(self, path: str) -> Any:
        return _good(await self._http.get(self.url + path, headers=self._key)).json()


def _good(answer: httpx.Response) -> httpx.Response:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise httpx.HTTPError("needs a key: set it in the environment (--key-env names it)")
    if answer.status_code != httpx.codes.OK:
        raise httpx.HTTPError(f"{answer.url.path}: answered {answer.status_code}")
    return answer


async def read_all(workers: list[WorkerReader], rows: int) -> View:
    """One reading of all workers, with the answers of the first `rows` sessions."""
    read = await asyncio.gather(*(one.read() for one in workers))
    sessions = newest(mine for _, mine in read)
    at = {row.session_id: worker for worker, (_, mine) in zip(workers, read, strict=True)
          for row in mine}  # fmt: skip
    shown = await asyncio.gather(*(at[row.session_id].with_answers(row) for row in sessions[:rows]))
    return View(
        clock=time.strftime("%H:%M:%S"),
        now_ms=int(time.time() * 1000),
        workers=[seen for seen, _ in read],
        sessions=shown,
        sessions_count=len(sessions),
    )
