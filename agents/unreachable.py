"""Why no broker takes us: the setting that is wrong, where the brokers' answer tells.

aiokafka says of every such fault that it cannot bootstrap, and its log has the rest. So the
first broker is connected to once more, and what it says is put into words.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

ASK_MAX_S: Final = 5.0
_CONNECTION: Final = (
    "ssl_context",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
)


async def why_unreachable(settings: Mapping[str, Any], error: object = None) -> str:
    """What is wrong with a connection of those settings (aiokafka's own), broker by broker;
    `error` is what is said where each of them answers now ("")."""
    servers = settings["bootstrap_servers"]
    servers = servers.split(",") if isinstance(servers, str) else servers
    said = {server.strip(): await _why(server.strip(), settings) for server in servers}
    told = [f"{server}: {why}" if len(said) > 1 else why for server, why in said.items() if why]
    return "; ".join(told) or str(error or "")


async def _why(server: str, settings: Mapping[str, Any]) -> str:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        return "expected host:port (kafka.brokers)"
    chosen = {name: settings[name] for name in _CONNECTION if name in settings}
    timeout_ms = min(settings.get("request_timeout_ms", 40_000), int(ASK_MAX_S * 1000))
    connection: AIOKafkaConnection | None = None
    try:
        connection = await create_conn(
            host.strip("[]"), int(port), request_timeout_ms=timeout_ms, **chosen
        )
        # A listener that wants a login lets everybody connect, and hangs up on the first question.
        await connection.send(MetadataRequest([]))
    except (KafkaError, OSError, TimeoutError, EOFError) as fault:
        return explain(fault, chosen, connected=connection is not None)
    finally:
        if connection is not None:
            connection.close()
    return ""


def explain(fault: BaseException, settings: Mapping[str, Any], *, connected: bool = False) -> str:
    """A connection's fault and the setting to look at. Pure; no password is in it."""
    user, mechanism = settings.get("sasl_plain_username"), settings.get("sasl_mechanism")
    tls = settings.get("ssl_context") is not None
    if isinstance(fault, SaslAuthenticationFailed):
        return (
            f"it does not let user {user!r} in by {mechanism}: wrong user or password, or the user "
            "has no such credentials (kafka.sasl.username, mechanism, password_env, password_file)"
        )
    if isinstance(fault, UnsupportedSaslMechanismError):
        return f"it knows no {mechanism} (kafka.sasl.mechanism): {fault}"
    if isinstance(fault, IllegalSaslStateError):
        return "this listener asks for no login: leave [kafka.sasl] out, or take another port"
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _certificate(fault)
    if isinstance(fault, ssl.SSLError):
        return (
            f"TLS does not come about ({fault.reason or fault}): does this port speak TLS "
            "(leave [kafka.tls] out where not), and is the client certificate the one it trusts "
            "(kafka.tls.cert_file)?"
        )
    if isinstance(fault, ConnectionRefusedError):
        return "nobody listens there (kafka.brokers)"
    if isinstance(fault, TimeoutError):
        return f"no answer within {ASK_MAX_S:.0f} s (kafka.brokers; a firewall on the way?)"
    if isinstance(fault, OSError) and not isinstance(fault, ConnectionError):
        return f"cannot connect: {fault.strerror or fault} (kafka.brokers)"
    return _hung_up(fault, tls=tls, login=mechanism is not None, connected=connected)


def _certificate(fault: ssl.SSLCertVerificationError) -> str:
    said = fault.verify_message or str(fault)
    if "mismatch" in said.lower() or "not valid for" in said.lower():
        return (
            f"its certificate is another host's: {said} (write kafka.brokers as the certificate "
            "has the host; kafka.tls.verify_hostname = false looks away)"
        )
    return f"its certificate is not trusted: {said} (kafka.tls.ca_file: the authority's PEM file)"


def _hung_up(fault: BaseException, *, tls: bool, login: bool, connected: bool) -> str:
    if connected:
        hint = "" if login else ": does it want a login ([kafka.sasl])?"
        return f"it hung up on the first question{hint} ({type(fault).__name__})"
    hint = (
        "does this port speak TLS? Leave [kafka.tls] out where not"
        if tls
        else "does this port want TLS ([kafka.tls])?"
    )
    return f"it hung up: {hint} ({type(fault).__name__})"
