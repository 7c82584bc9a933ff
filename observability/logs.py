"""Structured logs on stderr: one line per event, for people or for machines, without secrets.

DEBUG: details; INFO: what happened; WARNING: what is retried; ERROR: loss or corruption, or a person is needed.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from contracts.settings import LogSettings

MASK = "***"
_NAMES = r"password|passwd|passphrase|secret|token|credential|authorization|api[_-]?key|private[_-]?key"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# Where a secret ends is a guess: the longest is taken. Hiding a path or the next field is harmless.
# scheme://user:password@host: up to the last @ of the word, because a careless password may hold @ and /.
_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]{0,40}://[^\s:/]*:)(?P<rest>\S+)", re.IGNORECASE)
# password=… of a libpq connection string, access_token=… of a query, 'sasl.password': '…' and ('api_key', '…') of a
# repr, the same in JSON within a string, Authorization: Bearer … of a header.
_ASSIGNED = re.compile(
    rf"(?P<before>(?:{_NAMES})[\w.-]{{0,40}}(?:\s*[=:]|\\*['\"]\s*[=:,])\s*)"
    r"(?:b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"|\\+(?P<quote>['\"]).*?\\+(?P=quote)"
    r"|(?:(?:Bearer|Basic|Digest|Negotiate|Token|ApiKey)\s+)?\S+)",
    re.IGNORECASE | re.DOTALL,
)
_BEARER = re.compile(r"(?P<before>\bBearer\s+)\S+", re.IGNORECASE)
# Loggers with a line for every request or connection at INFO; the metrics count those.
_CHATTY = ("openlineage", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "alembic.runtime.plugins")


def configure(process: str, settings: LogSettings | None = None, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's logging to stderr (or `stream`), each line with the process.

    Both go through one chain, so that a library's line looks like ours and is masked like ours.
    """
    settings = settings or LogSettings()
    out = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _named(process),
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_format == "json":
        # The traceback becomes text before the mask, so that a secret in an exception's message is masked.
        last += [
            structlog.processors.format_exc_info,
            mask_secrets,
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        last += [
            structlog.processors.format_exc_info,
            mask_secrets,
            structlog.dev.ConsoleRenderer(colors=out.isatty(), timestamp_key="at", pad_event_to=30),
        ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; before `configure` (in Dagster's processes) it prints masked console lines."""
    return structlog.stdlib.get_logger(name)


def mask_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor: hides passwords, tokens and keys, by their names and as our clients write them."""
    return {key: _masked(key, value) for key, value in event.items()}


def mask(text: str) -> str:
    """The text with passwords of URLs, assigned passwords, tokens and keys, and bearer tokens replaced.

    In doubt it hides more: text that follows a secret without a space may be hidden too.
    """
    text = _URL_PASSWORD.sub(_without_password, text)
    for pattern in (_ASSIGNED, _BEARER):
        text = pattern.sub(rf"\g<before>{MASK}", text)
    return text


def _without_password(url: re.Match[str]) -> str:
    password, at, place = url["rest"].rpartition("@")
    return f"{url['before']}{MASK if password else ''}{at}{place}"


def _masked(key: object, value: Any) -> Any:
    if isinstance(key, (str, bytes)) and _SECRET_NAME.search(str(key)) and value is not None:
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {inner: _masked(inner, item) for inner, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2:
        # A name and its value, as headers are.
        return [_masked(None, value[0]), _masked(value[0], value[1])]
    if isinstance(value, (list, tuple, set)):
        return [_masked(None, item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # An exception, a settings object, bytes: rendered as text.
    return mask(str(value))


def _named(process: str) -> Processor:
    def add_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add_process


# Default until `configure`: structlog's own chain would show secrets.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.dev.set_exc_info,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        mask_secrets,
        structlog.dev.ConsoleRenderer(
            colors=False, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
        ),
    ],
)
