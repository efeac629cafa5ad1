"""Does what the schedule says: each fault at its time, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from chaos_rig import Rig, Seat
from chaos_schedule import Fault, Kind
from chaos_verdict import Trouble

from kafka_cluster import Broker

WHOLE_MAX_S = 60.0


async def make_trouble(rig: Rig, faults: list[Fault]) -> list[Trouble]:
    """Every fault at its time; what they were, once all are over."""
    return await asyncio.gather(*(_fault(rig, fault) for fault in faults))


async def _fault(rig: Rig, fault: Fault) -> Trouble:
    await asyncio.sleep(max(0.0, fault.at_s - rig.seconds()))
    seat, broker = rig.seats[fault.worker], rig.brokers[fault.broker]
    while fault.kind is Kind.KILL and seat.running.poll() is not None:
        await asyncio.sleep(0.1)  # it ended by itself: a kill is one of a live worker
    at_s = rig.seconds()
    who = f"broker {fault.broker}" if fault.kind.name.startswith("BROKER") else seat.log.parent.name
    print(f"{at_s:7.1f} s  {who:<9} {fault.lasts_s:5.1f} s  {fault.kind.value}", file=sys.stderr)
    match fault.kind:
        case Kind.KILL:
            await _kill(seat, fault.lasts_s)
        case Kind.STALL:
            await _stall(seat, fault.lasts_s)
        case Kind.CUT | Kind.RESET | Kind.ISLAND:
            await _cut(seat, fault)
        case Kind.BROKER_KILL:
            await asyncio.to_thread(broker.kill)
            await _again(rig, broker, fault.lasts_s)
        case Kind.BROKER_RESTART:
            await asyncio.to_thread(broker.stop)
            await _again(rig, broker, fault.lasts_s)
        case Kind.BROKER_STALL:
            broker.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            broker.signal(signal.SIGCONT)
            await _whole(rig)
        case Kind.DISK_FULL:
            await asyncio.to_thread(seat.disk.fill, seat.running)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(seat.disk.clear, seat.running)
    killed = seat.url if fault.kind is Kind.KILL else ""
    began_s, healed_s = rig.began_s + at_s, rig.began_s + rig.seconds()
    return Trouble(began_s, healed_s, killed, delays=fault.kind is not Kind.DISK_FULL)


async def _kill(seat: Seat, lasts_s: float) -> None:
    seat.held = True
    with contextlib.suppress(ProcessLookupError):
        seat.running.kill()
    await asyncio.to_thread(seat.running.wait)
    await asyncio.sleep(lasts_s)
    seat.start()
    seat.held = False


async def _stall(seat: Seat, lasts_s: float) -> None:
    process = seat.running
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(lasts_s)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)


async def _cut(seat: Seat, fault: Fault) -> None:
    links = seat.links if fault.kind is Kind.ISLAND else [seat.links[fault.broker]]
    for link in links:
        if fault.kind is Kind.RESET:
            await link.refuse()
        else:
            link.cut()
    await asyncio.sleep(fault.lasts_s)
    for link in links:
        link.heal()


async def _again(rig: Rig, broker: Broker, lasts_s: float) -> None:
    await asyncio.sleep(lasts_s)
    await asyncio.to_thread(broker.start)
    await _whole(rig)


async def _whole(rig: Rig) -> None:
    """A broker's fault is over when it has every copy again that it had: what needs two of three
    may wait for it until then."""
    deadline = rig.seconds() + WHOLE_MAX_S
    while rig.seconds() < deadline:
        await asyncio.sleep(0.5)
        with contextlib.suppress(KafkaError, OSError):
            admin = AIOKafkaAdminClient(bootstrap_servers=rig.bootstrap)
            await admin.start()
            try:
                topics = await admin.describe_topics(await admin.list_topics())
            finally:
                await admin.close()
            partitions = [one for topic in topics for one in topic["partitions"]]
            if all(len(one["isr"]) == len(one["replicas"]) for one in partitions):
                return
