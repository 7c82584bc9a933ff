"""Supervision: run work until it returns, again after a failure; and an error as one log line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from observability.waits import Cancelled

# Enough to identify the error; a whole statement with its values does not belong in a log.
REASON_CHARACTERS = 200


def supervise(
    work: Callable[[], None],
    stop: threading.Event,
    pauses: Sequence[float],
    on_failure: Callable[[Exception, int], bool],
    *,
    steady_seconds: float,
) -> None:
    """Run `work` until it returns; after a failure again, after the next of `pauses` (seconds; the last repeats).

    `on_failure` gets the error and the number of earlier ones: it returns True to retry, False to give up, or raises to
    end the caller. The count restarts after `steady_seconds` of work. Raises Cancelled as `work` does.
    """
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            return work()
        except Cancelled:
            raise
        # `on_failure` decides which errors are retried.
        except Exception as error:
            if time.monotonic() - began > steady_seconds:
                failures = 0
            if not on_failure(error, failures):
                return None
            stop.wait(pauses[min(failures, len(pauses) - 1)])
            failures += 1
    return None


def reason(error: BaseException | None) -> str:
    """The first line of an error, without a database's statement and values; its type if it has no text."""
    cause = getattr(error, "orig", None) or error
    line = str(cause).strip().split("\n", 1)[0]
    return line[:REASON_CHARACTERS] or type(cause).__name__
