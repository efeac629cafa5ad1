"""What a worker lets in as passed on by another, over a service in memory: forged, old,
repeated and misdirected requests are refused, and none is passed on twice."""

import asyncio
import base64
import json
import time

import httpx
import pytest
import pytest_asyncio

from flashfeed.agents.service import NOTED
from flashfeed.bridge.app import Cluster, create_app
from flashfeed.bridge.forwarded import (
    AGE_MAX_S,
    HEADER,
    NO_PARTITION,
    Admission,
    ForwardRefused,
    passed_to,
    sign,
    verify,
)
from flashfeed.bridge.keys import read_key_list
from flashfeed.bridge.peers import SESSIONS_PATH, ClusterPeers
from flashfeed.bridge.server import BridgeServer
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.models.errors import SessionElsewhere, Unavailable
from flashfeed.models.ownership import OwnedSessions, Owner, decode_sessions
from flashfeed.models.session import SessionSpec

SECRET = b"a secret of the group"
KEYS = BridgeSettings(keys=read_key_list("tenant:a-key-of-somebody-or-other"))


class Ownership:
    """Serves partition 3 in epoch 7."""

    worker = "here"

    def __init__(self, memory):
        self.memory = memory
        self.claimed = asyncio.Event()

    def accept(self, partition, epoch):
        if (partition, epoch) != (3, 7):
            raise Unavailable("the session is moving between workers")

    async def moved(self, owner):
        await self.claimed.wait()

    def owned_sessions(self):
        return OwnedSessions((3,), tuple(self.memory.sessions()))


@pytest_asyncio.fixture
async def far(memory):
    """The URL of a bridge with keys, which takes in what its group passes on."""
    peers = ClusterPeers(SECRET)
    app = create_app(memory, KEYS, Cluster(Ownership(memory), peers))
    server = BridgeServer(app, "127.0.0.1", 0)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()
    await peers.close()


def header_for(
    method="GET", target="/v1/sessions", body=b"", *, secret=SECRET, worker="here", partition=3,
    epoch=7, age_s=0.0,
):  # fmt: skip
    now_ms = int((time.time() - age_s) * 1000)
    passed = passed_to("tenant", worker, partition, epoch, now_ms)
    return {HEADER: sign(secret, passed, method, target, body)}


async def new_session(memory):
    """A session of the tenant that requests here are signed for."""
    return (
        await memory.of("tenant").create(SessionSpec(type="ohlcv", overflow="drop_oldest"))
    ).session_id


async def got(far, headers, target="/v1/sessions", method="GET", body=b""):
    async with httpx.AsyncClient() as client:
        return await client.request(method, far + target, headers=headers, content=body)


async def test_a_signed_request_needs_no_key(far):
    assert (await got(far, {})).status_code == 401
    answer = await got(far, header_for())
    assert answer.status_code == 200, answer.text


async def test_without_a_secret_the_header_opens_nothing(memory):
    server = BridgeServer(create_app(memory, KEYS), "127.0.0.1", 0)
    await server.start()
    try:
        answer = await got(f"http://127.0.0.1:{server.port}", header_for())
    finally:
        await server.stop()
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {HEADER: ""},
        {HEADER: "e30.00"},
        {HEADER: "x" * 5000},
        header_for(secret=b"the secret of another group"),
        header_for(method="DELETE"),
        header_for(target="/v1/sessions?all=1"),
        header_for(body=b"another body"),
    ],
    ids=["empty", "no mac", "long", "secret", "method", "target", "body"],
)
async def test_what_is_not_signed_for_this_request_is_refused(far, headers):
    answer = await got(far, headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forward_refused"


async def test_another_tenant_cannot_be_written_into_the_header(far):
    header = header_for()[HEADER]
    claims, _, mac = header.partition(".")
    other = json.loads(base64.urlsafe_b64decode(claims)) | {"tenant": "other"}
    forged = base64.urlsafe_b64encode(json.dumps(other).encode()).decode()
    assert (await got(far, {HEADER: f"{forged}.{mac}"})).status_code == 403


async def test_a_request_is_good_once_and_not_for_long(far):
    header = header_for()
    assert (await got(far, header)).status_code == 200
    again = await got(far, header)
    assert again.status_code == 403
    assert "was here before" in again.json()["error"]["message"]
    for age_s in (AGE_MAX_S + 5, -AGE_MAX_S - 5):
        answer = await got(far, header_for(age_s=age_s))
        assert answer.status_code == 403
        assert "at most 30 s old" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "wrong", [{"worker": "another"}, {"epoch": 6}, {"epoch": 8}, {"partition": 2}]
)
async def test_a_request_for_another_owner_is_to_be_asked_again(far, wrong):
    answer = await got(far, header_for(**wrong))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_body_is_read_to_check_it_and_once_more_to_act(far, memory):
    session = await new_session(memory)
    target = f"/v1/sessions/{session}/stream/push"
    body = json.dumps({"data": [{"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 9}]}).encode()
    headers = header_for("POST", target, body) | {"Content-Type": "application/json"}
    answer = await got(far, headers, target, "POST", body)
    assert answer.status_code == 200, answer.text
    assert len(memory.of("tenant").items(session)) == 1


async def test_only_workers_may_ask_which_sessions_are_here(far, memory):
    await new_session(memory)
    key = {"x-api-key": "a-key-of-somebody-or-other"}
    assert (await got(far, key, SESSIONS_PATH)).status_code == 404
    as_tenant = header_for(target=SESSIONS_PATH)
    assert (await got(far, as_tenant, SESSIONS_PATH)).status_code == 404
    worker = header_for(target=SESSIONS_PATH, partition=NO_PARTITION, epoch=0)
    answer = await got(far, worker, SESSIONS_PATH)
    assert answer.status_code == 200
    told = decode_sessions(answer.content)
    assert told == OwnedSessions((3,), tuple(memory.sessions()))


async def test_what_was_passed_on_is_not_passed_on_again(far, memory):
    """The session has moved on: the error goes back, with when to try again."""
    session = await new_session(memory)
    owner = Owner(3, 8, "third", "http://127.0.0.1:9", live=True)

    def elsewhere(session_id):
        error = SessionElsewhere("the session is moving between workers", owner)
        noted = NOTED.get()
        assert noted is None, "nobody is to pass it on"
        raise error

    memory.get = elsewhere
    target = f"/v1/sessions/{session}/stream/status"
    answer = await got(far, header_for(target=target), target)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text


def test_a_header_holds_what_was_signed():
    passed = passed_to("tenant", "w", 1, 2, 3)
    header = sign(SECRET, passed, "POST", "/a?b=c", b"body")
    assert verify(SECRET, header, "POST", "/a?b=c", b"body") == passed
    assert passed_to("tenant", "w", 1, 2, 3).nonce != passed.nonce


def test_what_was_seen_is_forgotten_when_it_is_too_old_anyway():
    admission = Admission("w")
    for number in range(1000):
        now_ms = number * 1000
        admission.admit(passed_to("t", "w", 0, 1, now_ms), now_ms)
    assert len(admission._seen) <= 2 * AGE_MAX_S + 2
    with pytest.raises(ForwardRefused):
        admission.admit(passed_to("t", "w", 0, 1, 0), 1_000_000)


async def test_a_strangers_body_is_not_read(far):
    """Who knows no secret would else make a worker hold as many bodies as it likes."""
    reader, writer = await asyncio.open_connection(*far.removeprefix("http://").split(":"))
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n{HEADER}: YQ.b.c\r\n"
    writer.write(f"{head}Content-Length: 1000000\r\n\r\n".encode())  # and no body
    async with asyncio.timeout(5):
        assert b" 403 " in await reader.readline()
    writer.close()
