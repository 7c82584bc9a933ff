"""A registry client for long-running processes: it waits while the registry is away, and raises a refusal as Fatal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka.schema_registry.error import SchemaRegistryError
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_exponential

from contracts.settings import KafkaSettings
from kafka_client.errors import Fatal
from kafka_client.registry import Registry, Unreachable, reason
from kafka_client.writer_schemas import LostSchema
from observability import logs
from observability.waits import WAITS, Cancelled

# Responses of a registry that starts, or of a proxy before it.
_STARTING = frozenset({408, 425, 429})
# Between two checks for an id that the registry lost.
LOST_SECONDS = 5.0

T = TypeVar("T")

_log = logs.get(__name__)


class PatientRegistry(Registry):
    """Retries until there is a response or `stop` is set.

    Raises Cancelled when `stop` is set during an outage, Fatal for a refusal that a retry does not change, and
    Undecodable for an id that is unknown or of another schema: that concerns a record.
    """

    def __init__(self, settings: KafkaSettings, stop: threading.Event | None = None) -> None:
        super().__init__(settings)
        self.stop = stop or threading.Event()

    def register(self, subject: str, schema: Any) -> int:
        return self._asked(lambda: super(PatientRegistry, self).register(subject, schema), subject)

    def id_of(self, subject: str, schema: Any) -> int | None:
        return self._asked(lambda: super(PatientRegistry, self).id_of(subject, schema), subject)

    def schema(self, schema_id: int) -> Any:
        return self._asked(lambda: super(PatientRegistry, self).schema(schema_id), f"schema {schema_id}")

    def _asked(self, call: Callable[[], T], what: str) -> T:
        began = False

        def warn(state: RetryCallState) -> None:
            nonlocal began
            self._warn(state)
            began = True

        retrying = Retrying(
            retry=retry_if_exception(may_pass),
            wait=wait_exponential(multiplier=0.1, max=5),
            stop=stop_when_event_set(self.stop),
            sleep=sleep_using_event(self.stop),
            before_sleep=warn,
        )
        try:
            return retrying(call)
        except RetryError as error:
            raise Cancelled from error
        except SchemaRegistryError as error:
            raise Fatal(
                f"the schema registry at {self._url} refuses {what} ({reason(error)}): is "
                "ELECTRORED_SCHEMA_REGISTRY_URL right, may we write there, and is it held to another schema?"
            ) from error
        finally:
            if began:
                WAITS.end("registry")

    def _warn(self, state: RetryCallState) -> None:
        error = reason(state.outcome.exception() if state.outcome else None)
        WAITS.begin(
            "registry",
            f"the schema registry at {self._url} does not answer ({error}): start it, or mend "
            "ELECTRORED_SCHEMA_REGISTRY_URL; this goes on by itself",
        )
        # Once; how long it has lasted is in the wait.
        if state.attempt_number == 1:
            _log.warning("the schema registry does not answer, retried", url=self._url, reason=error)

    def wait_for(self, error: LostSchema, is_found: Callable[[], bool]) -> None:
        """Wait until the id was put back. Raises Cancelled when `stop` is set."""
        _log.error("values are held back", reason=str(error))
        try:
            while not is_found():
                # Each time: another thread may have ended the same wait.
                WAITS.begin("registry", str(error))
                if self.stop.wait(LOST_SECONDS):
                    raise Cancelled
        finally:
            WAITS.end("registry")
        _log.info("the schema registry has the id again")


def may_pass(error: BaseException) -> bool:
    """Whether a retry of the same request may succeed."""
    if isinstance(error, SchemaRegistryError):
        return error.http_status_code >= 500 or error.http_status_code in _STARTING
    return isinstance(error, Unreachable)
