"""What was acknowledged over HTTP is there after kill -9: it is in `flashfeed.records`."""

import pytest
from layerscale import LayerScale

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import start_worker, stop_worker, wait_until_ready

from client_packages import module_beside

v08 = module_beside("layerscale==0.8.0", "layerscale", "layerscale_v08")

pytestmark = [pytest.mark.model, pytest.mark.broker]

CONFIG = """
[kafka]
brokers = "{brokers}"
group = "flashfeed-crash"

[bridge]
port = {port}

[engine]
context_tokens = 2048
sessions_max = 4
"""
TEXTS = [f"reading {number} is {number * 7}" for number in range(16)]
CANDLES = [{"o": 10 + n, "h": 12 + n, "l": 9 + n, "c": 11 + n, "v": 100} for n in range(8)]


def test_an_acknowledged_push_survives_kill_9(tmp_path):
    config, log = tmp_path / "worker.toml", tmp_path / "worker.log"
    with embedded_broker() as brokers:
        port = free_port()
        config.write_text(CONFIG.format(brokers=brokers, port=port))
        url = f"http://127.0.0.1:{port}"
        process = start_worker(config, log)
        try:
            wait_until_ready(port, process, log)
            with LayerScale(base_url=url, timeout=60) as client:
                session = client.sessions.create(
                    type="ohlcv", flash=[{"query": "up?", "choices": ["yes", "no"]}]
                )
                client.sessions.push(session.session_id, CANDLES[:4], wait=True)
                with LayerScale(base_url=url, default_headers={"Idempotency-Key": "last"}) as keyed:
                    ack = keyed.sessions.push(session.session_id, CANDLES[4:])
            assert ack.pushed == 4
            with v08.LayerScale(base_url=url, timeout=60) as client:
                feed = client.sessions.create(window=60, pre_decode=True).id
                client.sessions.push(feed, TEXTS[:12], wait=True)
                before = client.sessions.get(feed)
                client.sessions.push(feed, TEXTS[12:])
            process.kill()
            process.wait()
            process = start_worker(config, log)
            wait_until_ready(port, process, log)
            # The client does not know what became of its push, and sends it again.
            with LayerScale(
                base_url=url, timeout=60, default_headers={"Idempotency-Key": "last"}
            ) as client:
                client.sessions.push(session.session_id, CANDLES[4:], wait=True)
                stats = client.sessions.stats(session.session_id)
                state = client.sessions.get(session.session_id)
                [query] = client.sessions.list_flash(session.session_id).flash_queries
            with v08.LayerScale(base_url=url, timeout=60) as client:
                client.sessions.push(feed, "the last", wait=True)
                after = client.sessions.get(feed)
            # The last push waited; so all that stands before it in the partition is applied.
            with LayerScale(base_url=url, timeout=60) as client:
                text = client.sessions.get(feed).context_text
        finally:
            stop_worker(process)
    assert (stats.count, stats.first_open, stats.last_close) == (8, 10.0, 18.0)
    assert state.data_count == 8
    assert query.has_answer
    assert query.value in ("yes", "no")
    kept = [line for line in TEXTS if f"{line}\n" in text]
    assert kept == TEXTS[-len(kept) :] != []
    assert (before.window, before.pre_decode, before.ready) == (60, True, True)
    assert (after.window, after.pre_decode, after.ready) == (60, True, True)
    assert after.evicted >= before.evicted > 0
    assert after.data_version > before.data_version
    assert after.kv_tokens == after.tokens
