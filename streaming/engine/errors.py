"""What can go wrong in the engine, by what has to be done about it.

EngineError
├── Retriable   the same call again may succeed; nothing was changed
├── Abortable   this transaction is lost: abort, drop the overlay, seek back, go on
└── Fatal       a person or a new process is needed: fenced, lost position, re-created topic, unknown version
"""

from __future__ import annotations

from observability.lineage.runs import ToldToStop

# Where a message ends that asks for more than fits into one line.
RESTORING = 'see "Backup and restore" in docs/operations.md'


class EngineError(Exception):
    """Base of the engine's errors."""


class Retriable(EngineError):
    """The same call again may succeed; nothing was changed."""


class Abortable(EngineError):
    """This transaction is lost: abort, drop the overlay, seek back, go on."""


class Fatal(EngineError):
    """Going on could lose or double something; the message says what and what to do."""


class Stopping(ToldToStop):
    """Told to stop while waiting for a server that is away. Not an error: whoever runs the thread ends it quietly."""
