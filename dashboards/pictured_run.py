"""The run that README.md's pictures are of: the demo's feeds of real candles and readings as two
tenants', with prices, one broken record, generations and the probe, watched by a Prometheus.

    python -m dashboards.pictured_run [PYTHON]    two minutes; PYTHON: one that has matplotlib
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Final

import httpx

from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_feed import create_source_topics, replay, source_records
from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

ROOT: Final = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from prometheus_tools import prometheus  # noqa: E402

EACH: Final = 34
RATE: Final = 0.8
METRICS_KEY: Final = "m" * 32
BRIDGE: Final = 'api_keys_env = "PICTURED_KEYS"\nmetrics_key_env = "PICTURED_METRICS"\n'
KEYS: Final = {"desk": "d" * 32, "ward": "w" * 32}
SESSIONS: Final = {"NASDAQ:AAPL-USD:1d": "desk", "cgm-01": "ward"}
PROMETHEUS: Final = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: flashfeed
    authorization: {{credentials: {key}}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: flashfeed-probe
    static_configs: [{{targets: ["127.0.0.1:{probe}"]}}]
"""


def configured(home: Path, brokers: str) -> tuple[Path, int]:
    """The demo's configuration with tenants and prices, and the bridge's port."""
    path, port = write_config(home, brokers)
    text = path.read_text()
    for old, new in (
        ("[bridge]\n", f"[bridge]\n{BRIDGE}"),
        ("[engine]\n", '[prices]\ncurrency = "EUR"\ndevice_hour = 0.2\n\n[engine]\n'),
        ("[templates.market]\n", '[templates.market]\ntenant = "desk"\n'),
        ("[templates.sensor]\n", '[templates.sensor]\ntenant = "ward"\n'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return path, port


async def read_on(url: str) -> None:
    """Generations of both tenants, one after the other, for as long as it runs."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        while True:
            for session, tenant in SESSIONS.items():
                await asyncio.sleep(8)
                place = f"/v1/sessions/{urllib.parse.quote(session, safe='')}/generate"
                said = {"prompt": "Say what you see.", "max_tokens": 12}
                headers = {"Authorization": f"Bearer {KEYS[tenant]}"}
                answer = await http.post(place, json=said, headers=headers)
                print(tenant, answer.status_code, flush=True)


async def work(brokers: str, url: str) -> None:
    """Half of the records at once, the others at a steady pace, one of them broken."""
    records = list(source_records(EACH))
    middle = len(records) // 2
    records[middle + 9] = records[middle + 9]._replace(value=b"{broken")
    reading = asyncio.create_task(read_on(url))
    await replay(brokers, records, RATE, lambda *_: None, middle)
    await asyncio.sleep(10)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


def main() -> None:
    """Run it, and draw the pictures."""
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    os.environ["PICTURED_KEYS"] = ",".join(f"{name}:{key}" for name, key in KEYS.items())
    os.environ["PICTURED_METRICS"] = METRICS_KEY
    with tempfile.TemporaryDirectory(prefix="flashfeed-pictures-") as folder:
        home = Path(folder)
        with embedded_broker(home / "broker.log") as brokers:
            asyncio.run(create_source_topics(brokers))
            config, port = configured(home, brokers)
            probe = free_port()
            watch = PROMETHEUS.format(
                alerts=ROOT / "dashboards" / "alerts.yml", key=METRICS_KEY, port=port, probe=probe
            )
            log = home / "worker.log"
            with worker_process(config, log) as worker, prometheus(home, watch) as url:
                wait_until_ready(port, worker, log)
                began = time.time()
                command = [sys.executable, "-m", "flashfeed.cli.main", "probe", "-c", str(config)]
                with subprocess.Popen([*command, "--every", "5", "--port", str(probe)]) as prober:
                    asyncio.run(work(brokers, f"http://127.0.0.1:{port}"))
                    drawn = [python, "-m", "dashboards.pictures", url, str(time.time() - began)]
                    subprocess.run(drawn, cwd=ROOT, check=True)
                    prober.terminate()


if __name__ == "__main__":
    main()
