"""How slow this machine is beside the one that the suite's limits were set on."""

from __future__ import annotations

import time

# A million steps of an empty loop there, on a quiet core.
REFERENCE_SECONDS = 0.07
STEPS = 1_000_000


def _measured() -> float:
    began = time.perf_counter()
    for _ in range(STEPS):
        pass
    return time.perf_counter() - began


# At least 1: a limit never gets shorter. The best of three: a limit is for the machine, not for what else runs now.
SLOWNESS = max(1.0, min(_measured() for _ in range(3)) / REFERENCE_SECONDS)
