"""What is said to a person who asked for what cannot be."""

from __future__ import annotations

from kafka_client.errors import ElectroRedError


class RequestRefused(ElectroRedError):
    """What was asked for is not done, and nothing was changed; the message is one line that says why."""


class Busy(RequestRefused):
    """What stands in the way passes by itself, in a moment."""


class NotInTime(Busy):
    """A generation did not come to the barrier's position while live traffic could be held up for it."""


class Behind(Busy):
    """The generation has not read what the active one has; it may have in a moment."""
