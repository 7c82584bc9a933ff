"""Structured logs on stderr: one line per event, for people or for machines, without secrets.

DEBUG tells how, INFO what happened, WARNING what was retried; ERROR means loss or corruption, or that a
person is needed.
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
_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|authorization|api_?key", re.IGNORECASE)
# scheme://user:password@host: up to the last @ before the path, because a careless password may hold one.
_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]+(?=@)", re.IGNORECASE)
# password=… of a libpq connection string, sasl.password=… of a librdkafka configuration.
_ASSIGNED = re.compile(
    r"(?P<before>\b(?:[\w.]*password|passwd|secret|token)['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&}]+)",
    re.IGNORECASE,
)
# They log every request or connection at INFO; the metrics count those.
_CHATTY = ("openlineage", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "alembic.runtime.plugins")


def configure(process: str, settings: LogSettings | None = None, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's logging to stderr (or `stream`), lines named by the process.

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
    """The logger of a module; works before `configure` too (in Dagster's processes), for people and masked."""
    return structlog.stdlib.get_logger(name)


def mask_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor: no password, token or key leaves the process, whatever it hides in."""
    return {key: _masked(key, value) for key, value in event.items()}


def mask(text: str) -> str:
    """The text with the passwords of URLs and of connection strings replaced."""
    return _ASSIGNED.sub(rf"\g<before>{MASK}", _URL_PASSWORD.sub(rf"\g<before>{MASK}", text))


def _masked(key: object, value: Any) -> Any:
    if isinstance(key, str) and _SECRET_NAME.search(key) and value is not None:
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {inner: _masked(inner, item) for inner, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_masked(None, item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # An exception, a settings object, bytes: whatever it is, it is shown as text.
    return mask(str(value))


def _named(process: str) -> Processor:
    def add_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add_process


# Until a process says how it logs; without it structlog's own chain would show secrets.
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
