"""Refusals of requests about generations."""

from __future__ import annotations

from kafka_client.errors import ElectroRedError


class RequestRefused(ElectroRedError):
    """The request is refused, and nothing was changed; the message is one line with the reason."""


class Busy(RequestRefused):
    """The obstacle is temporary: a retry may succeed."""


class NotInTime(Busy):
    """A generation did not reach the barrier's position within the time for which live traffic may be paused."""


class Behind(Busy):
    """The generation is behind the active one, and may catch up."""
