"""The output topics of a real worker: each event once, from the stored position on."""

import asyncio
import subprocess
import sys
import time

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from flashfeed.cli.embedded_broker import free_port, start_broker, stop_broker
from flashfeed.client import (
    ANSWERS,
    DATA_UPDATED,
    FLASH_READY,
    AnswerRemoved,
    ClientError,
    TopicEvents,
    Unreachable,
    Wanted,
)
from flashfeed.models.events import event_identity

pytestmark = [pytest.mark.broker, pytest.mark.model]


def take(events, number):
    """That many events, within 30 s."""
    got, ends = [], time.monotonic() + 30
    for event in events:
        got.append(event)
        if len(got) == number:
            return got
        assert time.monotonic() < ends
    raise AssertionError("the events ended")


def test_an_answer_is_what_the_session_says(worker, session):
    with TopicEvents(worker.brokers, wanted=Wanted(session=session.id)) as events:
        version = session.push(21.5)
        [event] = take(events, 1)
    [answer] = session.standing()["flash_queries"]
    assert event.id == event_identity(event.data)
    assert (event.data.value, event.data.data_version) == (answer["value"], version)
    assert event.data.confidence == answer["confidence"]
    assert event.place.startswith(f"{FLASH_READY}/")


async def test_the_same_in_an_event_loop(worker, session):
    wanted = Wanted(session=session.id)
    async with TopicEvents(worker.brokers, (FLASH_READY, DATA_UPDATED), wanted=wanted) as events:
        version = await asyncio.to_thread(session.push, 22.5)
        async with asyncio.timeout(30):
            got = [await anext(events), await anext(events)]
    assert {type(event.data).__name__ for event in got} == {"FlashReady", "DataUpdated"}
    assert {event.data.data_version for event in got} == {version}


async def test_a_blocking_reader_in_an_event_loop_says_what_to_use(worker):
    with pytest.raises(ClientError, match="async with"):
        TopicEvents(worker.brokers).__enter__()


def test_a_restart_goes_on_behind_the_last_handled_event(worker, session, tmp_path):
    def events():
        wanted = Wanted(session=session.id)
        return TopicEvents(worker.brokers, wanted=wanted, position=tmp_path / "here.json")

    with events():
        pass  # the position is where it first looked, though nothing came
    versions = [session.push(20.0 + step) for step in range(3)]
    with events() as reader:
        first, second = take(reader, 2)  # the second is not handled: nobody asked for a third
    with events() as reader:
        again, third = take(reader, 2)
        reader.handled()
    assert [one.data.data_version for one in (first, second, third)] == versions
    assert again == second
    last = session.push(30.0)
    with events() as reader:
        [fourth] = take(reader, 1)
    assert fourth.data.data_version == last


READER = """
import sys
from flashfeed.client import TopicEvents, Wanted
brokers, session, position, out = sys.argv[1:]
with TopicEvents(brokers, wanted=Wanted(session=session), position=position) as events:
    print("open", flush=True)
    for event in events:
        with open(out, "a") as file:
            file.write(event.id + "\\n")
"""


def test_a_reader_killed_again_and_again_handles_each_once(worker, session, tmp_path):
    out, ids = tmp_path / "handled", []
    arguments = [worker.brokers, session.id, str(tmp_path / "here.json"), str(out)]
    for step in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", READER, *arguments], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "open\n"
            try:
                session.push(20.0 + step)
                saved, ends = len(ids), time.monotonic() + 30
                while len(ids) == saved and time.monotonic() < ends:
                    time.sleep(0.05)
                    ids = out.read_text().split() if out.exists() else []
                time.sleep(0.2)  # handled and saved: killed between the two it comes again
            finally:
                process.kill()
        session.push(25.0 + step)  # while nobody reads
    process = subprocess.Popen([sys.executable, "-c", READER, *arguments])
    try:
        ends = time.monotonic() + 30
        while len(out.read_text().split()) < 6 and time.monotonic() < ends:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    ids = out.read_text().split()
    with TopicEvents(worker.brokers, wanted=Wanted(session=session.id), start="earliest") as events:
        assert ids == [event.id for event in take(events, 6)]


def test_a_repeat_is_dropped_and_what_is_no_event_is_passed_over(worker, session):
    session.push(21.0)
    with TopicEvents(worker.brokers, wanted=Wanted(session=session.id), start="earliest") as events:
        [event] = take(events, 1)
        value = msgspec.json.encode({"session_id": session.id})

        async def disturb():
            async with AIOKafkaProducer(bootstrap_servers=worker.brokers) as producer:
                topic, partition, _ = event.place.split("/")
                headers = [("ce_type", b"flashfeed.flash_ready"), ("ce_id", event.id.encode())]
                bodies = [msgspec.json.encode(event.data), value, b"\xff{"]
                for body in bodies:
                    await producer.send_and_wait(
                        topic, body, partition=int(partition), headers=headers
                    )
                await producer.send_and_wait(topic, b"{}", partition=int(partition))

        asyncio.run(disturb())
        version = session.push(23.0)
        [fresh] = take(events, 1)
        assert (fresh.data.data_version, events.malformed) == (version, 3)


def test_the_answers_topic_says_when_a_question_is_gone(worker, session):
    wanted = Wanted(session=session.id)
    with TopicEvents(worker.brokers, (FLASH_READY, ANSWERS), wanted=wanted) as events:
        session.push(21.0)
        twice = take(events, 2)
        assert len({event.id for event in twice}) == 1  # one answer, on both topics
        session.delete()
        [removed] = take(events, 1)
    assert removed.data == AnswerRemoved(session.id, 1)


async def test_a_reader_whose_brokers_are_away_ends_as_any():
    port = free_port()
    broker = start_broker(port)
    try:
        async with TopicEvents(f"127.0.0.1:{port}") as events:
            reading = asyncio.create_task(anext(events))
            await asyncio.sleep(0.3)
            stop_broker(broker)
            await asyncio.sleep(0.5)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    finally:
        stop_broker(broker)


def test_no_broker_is_a_clean_error():
    with (
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"),
        TopicEvents("127.0.0.1:1", connection={"request_timeout_ms": 1000}),
    ):
        pass
