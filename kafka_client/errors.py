"""Errors by what has to be done about them. One tree for sources, engine and replay.

ElectroRedError
├── Retriable      nothing is lost: start again from the stored position; `on` is the server that is waited for
│   └── Abortable  the transaction ended without a confirmed commit: drop the overlay, begin again from progress
│       └── OutcomeUnknown  it may be committed: a new producer, and progress is read back from its topic first
└── Fatal          a person or a new process is needed: lost position, re-created topic, unknown version
    ├── Fenced     another process has taken over: end
    └── Refused    going on could lose or falsify something; the message names it and the remedy
"""

from __future__ import annotations

from observability.waits import On

# End of a message whose remedy does not fit into one line.
RESTORING = 'see "Backup and restore" in docs/operations.md'
# Remedy for foreign records in a generation's topics: they cannot be removed, but all can be computed again.
ALIEN = (
    "nothing but the generation's own workers may write there. Take that right away (`python -m contracts acls` lists "
    "the users with it), then compute the pipeline again from the log (a replay, or an empty results database)"
)


class ElectroRedError(Exception):
    """Base of our errors: the message is one line for a person."""


class Retriable(ElectroRedError):
    """Nothing is lost: start again from the stored position. `on`: the server that is waited for, if it is one."""

    def __init__(self, reason: str, on: On | None = None) -> None:
        super().__init__(reason)
        self.on = on


class Abortable(Retriable):
    """The transaction ended without a confirmed commit: drop the overlay, begin again from progress.

    Of this class itself, the transaction was aborted, so progress in memory holds.
    """


class OutcomeUnknown(Abortable):
    """It may be committed: the producer was replaced, and progress has to be read back from its topic."""


class Fatal(ElectroRedError):
    """Going on could lose or double something; the message names it and the remedy."""


class Fenced(Fatal):
    """Another process has taken over; this one ends."""


class Refused(Fatal):
    """Going on could lose or falsify something; the message names it and the remedy."""
