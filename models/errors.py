"""One tree of errors. Each class says what becomes of it at every edge.

`status` is the HTTP status the bridge answers with, `code` the short name in its
JSON error, `reason` the dead letter's reason header, `retriable` whether the same
call can succeed later without anybody changing anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ownership import Owner


class FlashfeedError(Exception):
    """Base of everything flashfeed raises on purpose."""

    status: int = 500
    code: str = "internal_error"
    reason: str = "internal"
    retriable: bool = False


class ConfigError(FlashfeedError):
    """The configuration is wrong; the message names the key and what was expected."""

    code = "config_error"


class RecordError(FlashfeedError):
    """A record does not decode, map or validate.

    `path` is where in the source value the fault lies (`$.candle.close`, or `$` for
    the whole value).
    """

    status = 400
    code = "invalid_record"
    reason = "invalid"

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class DecodeFault(RecordError):
    """The bytes are not in the format that the feed's codec reads."""

    reason = "decode"


class FramingFault(DecodeFault):
    """The bytes around the value are not the framing that the feed's codec expects."""

    reason = "bad_framing"


class UnknownSchema(DecodeFault):
    """A message names a schema that the registry, or the configuration, does not have."""

    reason = "unknown_schema"


class BadSchema(DecodeFault):
    """A schema is there and cannot be used; no message of it can be read."""

    reason = "bad_schema"


class BirthMissing(DecodeFault):
    """A Sparkplug metric has only an alias, and no birth gave it a name in time."""

    reason = "birth_missing"


class ValidationFault(RecordError):
    """All fields are there, but one breaks the record type's rules."""

    reason = "validate"


class RequestError(FlashfeedError):
    """A caller asked for something that cannot be, as it was asked."""

    status = 400
    code = "invalid_request_error"
    reason = "invalid"


class SessionUnknown(FlashfeedError):
    """No such session: never created, or deleted."""

    status = 404
    code = "session_not_found"
    reason = "session_unknown"


class OutcomeLate(FlashfeedError):
    """An outcome of an answer that is no longer kept, or never was."""

    status = 404
    code = "outcome_late"
    reason = "outcome_late"


class OutcomeContradicts(FlashfeedError):
    """Another outcome of the same answer was applied before; it stands."""

    status = 409
    code = "outcome_contradicts"
    reason = "outcome_contradicts"


class SessionsFull(FlashfeedError):
    """A feed has all the sessions that it may make by itself."""

    status = 409
    code = "sessions_full"
    reason = "sessions_full"


class ChangelogCorrupt(FlashfeedError):
    """What the changelog has of a session cannot be used; it takes nothing more until it is
    deleted. The bytes are a dead letter."""

    status = 409
    code = "changelog_corrupt"
    reason = "changelog_corrupt"


class ModelUnknown(FlashfeedError):
    """No such model: not a configured name, no file in `models.dirs`, no URL that
    `models.allow_hosts` lets through. The message names the known models."""

    status = 404
    code = "model_not_found"
    reason = "model_unknown"


class ModelRefused(RequestError, ConfigError):
    """A model was found and cannot be used: too large, not a GGUF, another hash, a kind
    that the engine cannot run. A request or the configuration named it."""

    code = "model_refused"
    reason = "model_refused"


class SessionExists(FlashfeedError):
    """A session or query of that name is there already."""

    status = 409
    code = "already_exists"
    reason = "session_exists"


class SessionFailed(FlashfeedError):
    """The session cannot take this input, now or later."""

    status = 409
    code = "session_failed"
    reason = "session_failed"


class SessionBusy(FlashfeedError):
    """A generation of the session is under way, and this would be in its way."""

    status = 409
    code = "session_busy"
    reason = "session_busy"


class ContextFull(SessionFailed):
    """The session's context window has no room for the new tokens."""

    status = 400
    code = "context_length_exceeded"
    reason = "context_full"


class Overloaded(FlashfeedError):
    """A bounded queue is full; nothing was written. Try again after `retry_after_s`."""

    status = 429
    code = "rate_limit_exceeded"
    reason = "overloaded"
    retriable = True
    retry_after_s: float = 1.0


class EngineFull(Overloaded):
    """The engine has as many sessions as it may; one must end before another begins."""


class LimitReached(Overloaded):
    """A tenant took all that it may; the message names the limit. Other tenants notice
    nothing. `retry_after_s`: when there is room again, as far as that is known."""

    reason = "limit_reached"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(FlashfeedError):
    """The worker cannot do this now (starting, rebuilding, broker away)."""

    status = 503
    code = "unavailable"
    reason = "unavailable"
    retriable = True
    retry_after_s: float = 1.0


class Denied(Unavailable):
    """The brokers' access control lists do not let us; the message names resource and operation.
    Who grants it need not change anything here."""

    code = "denied"


class SessionElsewhere(Unavailable):
    """Another worker owns the session: `owner` says which, for whoever passes requests on.
    The message does not: a client has no business there."""

    def __init__(self, message: str, owner: Owner) -> None:
        super().__init__(message)
        self.owner = owner


class ModelUnavailable(Unavailable):
    """The model cannot be had now (its host away, the download cut, no memory free)."""

    code = "model_unavailable"
    reason = "model_unavailable"


class WriteUncertain(FlashfeedError):
    """Kafka did not acknowledge a write: it may be there or not. Not a status that
    clients retry by themselves, since without an idempotency key a retry may write twice."""

    status = 424
    code = "write_uncertain"
    reason = "unavailable"


class Fenced(Unavailable):
    """The partition is another worker's: the brokers take nothing of ours for it any more."""


class EngineError(FlashfeedError):
    """llama.cpp returned an error; the sessions are back at their last committed position."""

    status = 500
    code = "engine_error"
    reason = "engine"
    retriable = True
