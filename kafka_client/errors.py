"""What can go wrong in a process, by what has to be done about it. One tree for sources, engine and replay.

ElectroRedError
├── Retriable      nothing is lost: start again from the stored position; `on` is the server that is waited for
│   └── Abortable  this transaction is lost: abort, drop the overlay, seek back, go on
│       └── OutcomeUnknown  the commit may have happened; the producer is a new one, and only progress knows
└── Fatal          a person or a new process is needed: lost position, re-created topic, unknown version
    ├── Fenced     another process has taken over: end
    └── Refused    going on could lose or falsify something; the message says what, and what a person can do
"""

from __future__ import annotations

from observability.waits import On

# Where a message ends that asks for more than fits into one line.
RESTORING = 'see "Backup and restore" in docs/operations.md'
# Of a generation's own topics: what was mixed into them cannot be taken out again, but all can be computed again.
ALIEN = (
    "nothing but the generation's own workers may write there. Take that right away (`python -m contracts acls` lists "
    "who has it), then compute the pipeline again from the log (a replay, or an empty results database)"
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
    """The commit may or may not have happened; the producer is a new one, and only progress knows."""


class Fatal(ElectroRedError):
    """Going on could lose or double something; the message says what and what to do."""


class Fenced(Fatal):
    """Another process has taken over; this one ends."""


class Refused(Fatal):
    """Going on could lose or falsify something; the message says what, and what a person can do."""
