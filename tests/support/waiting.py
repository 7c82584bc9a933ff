"""Wait for a condition, with a limit and a reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.machine import SLOWNESS

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None],
    seconds: float = 120.0,
    what: str | Callable[[], str] = "condition",
    poll_seconds: float = 0.05,
) -> T:
    """The condition's first true value. Fails with `what` if none comes in time; raises what the condition raises.

    `seconds` are those of the machine that limits were set on: a slower one has longer.
    `what` may be a call, for what is to be read at that moment only.
    """
    seconds *= SLOWNESS
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, (
            f"no {what if isinstance(what, str) else what()} within {seconds:.0f} s"
        )
        time.sleep(poll_seconds)
    return value
