"""A generation that was just built is a little behind the active one: it is compared as soon as it is not."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay

from contracts.settings import KafkaSettings
from streaming.replay import difference
from streaming.replay.difference import Difference, Hold
from streaming.replay.errors import Busy, NotInTime

# What stands in the way of most passes within a second or two.
AGAIN_SECONDS = 1.0
# Live traffic rested for nothing: before it does so again it has this long.
REST_SECONDS = 60.0
# Who waits is told why, from time to time.
TOLD_EVERY = 10


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
    """The difference of a generation, as soon as workers have brought it to where the active one is.

    `waiting` is told what stands in the way. Raises RequestRefused, after `seconds` the Busy that was met last.
    """

    def failure(state: RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome is not None else None

    def said(state: RetryCallState) -> None:
        if state.attempt_number % TOLD_EVERY == 1:
            waiting(str(failure(state)))

    retrying = Retrying(
        retry=retry_if_exception_type(Busy),
        wait=lambda state: REST_SECONDS if isinstance(failure(state), NotInTime) else AGAIN_SECONDS,
        stop=stop_before_delay(seconds),
        before_sleep=said,
        reraise=True,
    )
    return retrying(difference.take, kafka, results, pipeline, number, hold=hold)
