"""Wait for a condition, with a limit and a reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None],
    seconds: float = 120.0,
    what: str | Callable[[], str] = "condition",
    poll_seconds: float = 0.05,
) -> T:
    """The condition's first true value. Fails with `what` if none comes in time; raises what the condition raises.

    `what` may be a call, for what is to be read at that moment only.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, (
            f"no {what if isinstance(what, str) else what()} within {seconds} s"
        )
        time.sleep(poll_seconds)
    return value
