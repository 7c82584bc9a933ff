"""When the frontier may move, and to where. Pure: time and WAL positions are handed in.

Flushed WAL and clock of the server are read together. A transaction that commits after the answer is behind
that WAL position, and its events are recorded after the published frontier; so when the stream has passed
the position, the time of the answer is a frontier.
"""

from __future__ import annotations

# How often the frontier moves, in a storm and in silence.
PERIOD_SECONDS = 1.0


class Frontier:
    """The frontier of one source, in microseconds of the Unix epoch; it never goes back."""

    def __init__(self, published: int) -> None:
        self.published = published
        self._question: tuple[int, int] | None = None
        self._next_at = 0.0

    @property
    def may_ask(self) -> bool:
        """Whether no question is open; the caller decides how often to ask."""
        return self._question is None

    def asked(self, lsn: int, at: int, clock: float) -> None:
        self._question = (lsn, at)
        self._next_at = clock + PERIOD_SECONDS

    def is_answered(self, lsn: int) -> bool:
        """Whether the stream, having passed `lsn`, has answered the open question."""
        return self._question is not None and lsn >= self._question[0]

    def candidate(self, lsn: int, committed_at: int, clock: float) -> int | None:
        """What to publish after everything up to `lsn` is written; None: it is not time to.

        While the stream is behind that is the last whole transaction's commit time, once per period.
        """
        if self._question is not None and lsn >= self._question[0]:
            at = self._question[1]
            self._question = None
            return max(self.published, at)
        if self._question is not None and clock >= self._next_at:
            self._next_at = clock + PERIOD_SECONDS
            return max(self.published, committed_at)
        return None
