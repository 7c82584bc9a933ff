"""What can go wrong in the engine, by what has to be done about it.

EngineError
├── Retriable   the same call again may succeed; nothing was changed
├── Abortable   this transaction is lost: abort, drop the overlay, seek back, go on
└── Fatal       a person or a new process is needed: fenced, lost position, re-created topic, unknown version
"""

from __future__ import annotations

# Where a message ends that asks for more than fits into one line.
RESTORING = 'see "Backup and restore" in docs/operations.md'
# Of a generation's own topics: what was mixed into them cannot be taken out again, but all can be computed again.
ALIEN = (
    "nothing but the generation's own workers may write there. Take that right away (`python -m contracts acls` lists "
    "who has it), then compute the pipeline again from the log (a replay, or an empty results database)"
)


class EngineError(Exception):
    """Base of the engine's errors."""


class Retriable(EngineError):
    """The same call again may succeed; nothing was changed."""


class Abortable(EngineError):
    """This transaction is lost: abort, drop the overlay, seek back, go on."""


class Fatal(EngineError):
    """Going on could lose or double something; the message says what and what to do."""
