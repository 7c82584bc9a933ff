"""Run work until it ends, again after it failed; and the one line that an error is in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from observability.waits import Cancelled

# Enough to know what is wrong; a whole statement with its values is neither readable nor for a log.
REASON_CHARACTERS = 200


def supervise(
    work: Callable[[], None],
    stop: threading.Event,
    pauses: Sequence[float],
    on_failure: Callable[[Exception, int], bool],
    *,
    steady_seconds: float,
) -> None:
    """Run `work` until it returns; after a failure again, behind the next of `pauses` (seconds; the last repeats).

    `on_failure` gets the error and how many came before it, and decides: it raises what ends the caller, returns False
    to give up, True to go on. Failures count anew after `steady_seconds` of work. Raises Cancelled as `work` does.
    """
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            return work()
        except Cancelled:
            raise
        # Which errors are tried again is the caller's decision.
        except Exception as error:
            if time.monotonic() - began > steady_seconds:
                failures = 0
            if not on_failure(error, failures):
                return None
            stop.wait(pauses[min(failures, len(pauses) - 1)])
            failures += 1
    return None


def reason(error: BaseException | None) -> str:
    """The first line of what went wrong, without a database's statement and its values; the type if it has no text."""
    cause = getattr(error, "orig", None) or error
    line = str(cause).strip().split("\n", 1)[0]
    return line[:REASON_CHARACTERS] or type(cause).__name__
