"""Comparison of a generation that was just built, once it has caught up with the active one."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay

from contracts.settings import KafkaSettings
from streaming.replay import difference
from streaming.replay.difference import Difference, Hold
from streaming.replay.errors import Busy, NotInTime

# Most reasons to wait are over within a second or two.
AGAIN_SECONDS = 1.0
# Live traffic was paused in vain: the minimum until it is paused again.
REST_SECONDS = 60.0
# Every so many attempts the caller gets the reason.
REPORT_EVERY = 10


def caught_up(
    kafka: KafkaSettings,
    results: Engine,
    pipeline: str,
    number: int,
    *,
    hold: Hold,
    seconds: float,
    waiting: Callable[[str], None],
) -> Difference:
    """The difference of a generation, as soon as it has caught up with the active one.

    `waiting` gets the reason of the wait. Raises RequestRefused; after `seconds` the last Busy.
    """

    def failure(state: RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome is not None else None

    def report(state: RetryCallState) -> None:
        if state.attempt_number % REPORT_EVERY == 1:
            waiting(str(failure(state)))

    retrying = Retrying(
        retry=retry_if_exception_type(Busy),
        wait=lambda state: REST_SECONDS if isinstance(failure(state), NotInTime) else AGAIN_SECONDS,
        stop=stop_before_delay(seconds),
        before_sleep=report,
        reraise=True,
    )
    return retrying(difference.take, kafka, results, pipeline, number, hold=hold)
