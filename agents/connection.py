"""How to reach the brokers: the configuration's words in aiokafka's and Faust's.

The one place where a secret is read. Everything that opens a connection takes its
keyword arguments from here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.helpers import create_ssl_context

from flashfeed.models.config import KafkaConfig, SaslConfig, TlsConfig
from flashfeed.models.errors import ConfigError


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop an aiokafka consumer. Where a fetch that failed waits to be tried again, its `stop`
    leaves the connections open and raises CancelledError, though nobody was cancelled."""
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        await consumer._client.close()


def secret(env: str, file: str = "") -> str:
    """A secret from the environment or a file; ConfigError names what is missing."""
    if env:
        value = os.environ.get(env)
        if not value:
            raise ConfigError(f"environment variable {env} is not set; the configuration names it")
        return value
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the secret: {error.strerror}") from None


def tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """The TLS context; ConfigError names a file that cannot be used."""
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=tls.ca_file or None,
            certfile=tls.cert_file or None,
            keyfile=tls.key_file or None,
            password=secret(tls.key_password_env) if tls.key_password_env else None,
        )
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f for f in (tls.ca_file, tls.cert_file, tls.key_file) if f)
        raise ConfigError(f"kafka.tls: cannot use {files}: {error}") from None
    context.check_hostname = tls.verify_hostname
    return context


def broker_list(kafka: KafkaConfig) -> list[str]:
    """Each `host:port` of the setting."""
    return [host.strip() for host in kafka.brokers.split(",") if host.strip()]


def client_settings(kafka: KafkaConfig) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes."""
    settings: dict[str, Any] = {
        "bootstrap_servers": broker_list(kafka),
        "request_timeout_ms": int(kafka.request_timeout_s * 1000),
        "security_protocol": _protocol(kafka),
    }
    if kafka.tls is not None:
        settings["ssl_context"] = tls_context(kafka.tls)
    if kafka.sasl is not None:
        settings["sasl_mechanism"] = kafka.sasl.mechanism
        settings["sasl_plain_username"] = kafka.sasl.username
        settings["sasl_plain_password"] = _password(kafka.sasl)
    return settings


def faust_credentials(kafka: KafkaConfig) -> Any:
    """The same as Faust's credentials; None for a plain connection."""
    context = tls_context(kafka.tls) if kafka.tls is not None else None
    if kafka.sasl is not None:
        credentials = faust.SASLCredentials(
            username=kafka.sasl.username,
            password=_password(kafka.sasl),
            mechanism=kafka.sasl.mechanism,
            ssl_context=context,
        )
        return credentials
    return faust.SSLCredentials(context) if context is not None else None


def _protocol(kafka: KafkaConfig) -> str:
    return ("SASL_" if kafka.sasl else "") + ("SSL" if kafka.tls else "PLAINTEXT")


def _password(sasl: SaslConfig) -> str:
    return secret(sasl.password_env, sasl.password_file)
