"""What can go wrong in a source, by what has to be done about it.

SourceError
├── Interrupted   the connection or the transaction is lost: start again from the position in the ledger
├── Fenced        another process has taken over this source: end
└── Refused       going on could lose or falsify something; the message says what, and what a person can do
"""

from __future__ import annotations

from observability.waits import On


class SourceError(Exception):
    """Base of the sources' errors."""


class Interrupted(SourceError):
    """The connection or the transaction is lost: start again from the position in the ledger.

    `on`: the server that is waited for meanwhile, if it is one.
    """

    def __init__(self, reason: str, on: On | None = None) -> None:
        super().__init__(reason)
        self.on = on


class Fenced(SourceError):
    """Another process has taken over this source."""


class Refused(SourceError):
    """Going on could lose or falsify something; the message says what, and what a person can do."""
