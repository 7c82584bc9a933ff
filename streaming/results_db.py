"""The results database for long-running processes: outages are waited for, a refusal ends the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import Pool
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_exponential

from contracts.settings import KEEPALIVES, ResultsDbSettings
from kafka_client.clients import is_forbidden
from kafka_client.errors import Fatal
from observability import logs
from observability.supervision import reason
from observability.waits import WAITS, Cancelled

# A hung connection would hold results back for TCP's default of a quarter of an hour.
_CONNECT = {
    "connect_timeout": 5,
    **KEEPALIVES,
    "tcp_user_timeout": 10_000,
}
# Classes of errors that a retry does not change: bad data, a constraint, a missing table or right, a limit.
_REFUSED = ("22", "23", "42", "54")

T = TypeVar("T")

_log = logs.get(__name__)


def connect(results: ResultsDbSettings, name: str, poolclass: type[Pool] | None = None) -> Engine:
    """The results database; a server that does not answer is an error within seconds."""
    return create_engine(
        results.results_db_url.get_secret_value(),
        connect_args=_CONNECT | {"application_name": name},
        poolclass=poolclass,
    )


def retried(call: Callable[[], T], stop: threading.Event) -> T:
    """The call's result, retried while a server is away.

    Raises Cancelled when `stop` is set meanwhile, Fatal if the results database or Kafka would refuse the call again.
    """
    reporter = f"retrying {threading.get_ident()}"
    retrying = Retrying(
        retry=retry_if_exception(_is_away),
        wait=wait_exponential(multiplier=0.05, max=2),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=partial(_warn, reporter),
    )
    try:
        return retrying(call)
    except RetryError as error:
        raise Cancelled from error
    except DBAPIError as error:
        if not _is_refused(error):
            raise
        raise Fatal(f"the results database refuses ({_sqlstate(error)}): {reason(error)}") from error
    except KafkaException as error:
        raise Fatal(
            f"Kafka refuses ({reason(error)}): give the Kafka user of this process the right, or mend "
            "its credentials (ELECTRORED_KAFKA_…), and start again"
        ) from error
    finally:
        WAITS.end("kafka", reporter)
        WAITS.end("postgres", reporter)


def _is_away(error: BaseException) -> bool:
    if isinstance(error, (OperationalError, InterfaceError)):
        return not _is_refused(error)
    return isinstance(error, KafkaException) and not _is_forbidden(error)


def _is_forbidden(error: KafkaException) -> bool:
    cause = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and is_forbidden(cause)


def _is_refused(error: DBAPIError) -> bool:
    return _sqlstate(error).startswith(_REFUSED)


def _sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's SQLSTATE; empty without a response."""
    return getattr(error.orig, "pgcode", None) or ""


def _warn(reporter: str, state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, KafkaException):
        WAITS.begin("kafka", f"Kafka does not answer: {reason(error)}", reporter)
    else:
        WAITS.begin("postgres", f"the results database does not answer: {reason(error)}", reporter)
    _log.warning("a server is away, retried", attempt=state.attempt_number, reason=reason(error))
