"""Errors by what has to be done about them. One tree for sources, engine and replay.

ElectroRedError
├── Retriable      nothing is lost: start again from the stored position; `on` is the server that is waited for
│   └── Abortable  this transaction is lost: abort, drop the overlay, seek back, go on
│       └── OutcomeUnknown  the commit may have happened; a new producer reads it from the progress topic
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
    """This transaction is lost: abort, drop the overlay, seek back, go on."""


class OutcomeUnknown(Abortable):
    """The commit may have happened; a new producer reads the outcome from the progress topic."""


class Fatal(ElectroRedError):
    """Going on could lose or double something; the message names it and the remedy."""


class Fenced(Fatal):
    """Another process has taken over; this one ends."""


class Refused(Fatal):
    """Going on could lose or falsify something; the message names it and the remedy."""
