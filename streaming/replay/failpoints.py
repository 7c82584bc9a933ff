"""Points where a test kills the process as a power cut would, between two steps that are not one transaction."""

from __future__ import annotations

import os
import signal

VARIABLE = "ELECTRORED_FAILPOINT"


def failpoint(name: str) -> None:
    """End this process with SIGKILL if the environment names this point; no-op otherwise.

    Read here and not in the settings: it is no setting, and no process but a test's child ever has it.
    """
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
