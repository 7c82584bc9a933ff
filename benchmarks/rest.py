"""The platform at rest: a sale every 5 seconds, no simulators, no readers. Memory (PSS) and CPU, by process.

PSS shares what processes share among them, so the sum is what the machine has to have. A process's children count with
it, those that ended meanwhile too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks import latency, platform
from benchmarks.figures import Figure, at_most

SALES_PER_SECOND = 0.2
# Kafka's compiler is busy for the first minute.
SETTLE_SECONDS = 60.0
# Dagster observes once a minute, its daemons look every 30 s.
MEASURED_SECONDS = 60.0
MOST_GIBIBYTES, MOST_PERCENT = 1.4, 20.0


@dataclass(frozen=True)
class Used:
    """What a supervised process and its children have of memory, and have spent of CPU time."""

    mebibytes: float
    cpu_seconds: float


def measure(
    environment: Mapping[str, str],
    settle_seconds: float = SETTLE_SECONDS,
    seconds: float = MEASURED_SECONDS,
) -> list[Figure]:
    """Sums over all processes and figures of each, the greatest first, on a platform that runs."""
    with latency.load(environment, SALES_PER_SECOND):
        time.sleep(settle_seconds)
        began, before = time.monotonic(), _used(environment)
        time.sleep(seconds)
        lasted, after = time.monotonic() - began, _used(environment)
    percent = {
        name: (used.cpu_seconds - before[name].cpu_seconds) / lasted * 100 for name, used in after.items()
    }
    memory = {name: used.mebibytes for name, used in after.items()}
    return [
        at_most("at rest: memory (PSS)", sum(memory.values()) / 1024, "GiB", MOST_GIBIBYTES),
        at_most("at rest: CPU", sum(percent.values()), "% of a core", MOST_PERCENT),
        *(Figure(f"at rest: memory of {name}", memory[name], "MiB") for name in _greatest_first(memory)),
        *(
            Figure(f"at rest: CPU of {name}", percent[name], "% of a core")
            for name in _greatest_first(percent)
        ),
    ]


def _greatest_first(figures: Mapping[str, float]) -> list[str]:
    return sorted(figures, key=lambda name: -figures[name])


def _used(environment: Mapping[str, str]) -> dict[str, Used]:
    supervisor = platform.supervisor(environment)
    used = {
        state.name: _of([process, *process.children(recursive=True)])
        for state in supervisor.states().values()
        if state.pid
        for process in [psutil.Process(state.pid)]
    }
    return used | {"supervisord": _of([psutil.Process(supervisor.pid())])}


def _of(processes: Sequence[psutil.Process]) -> Used:
    """Of those that are still there: child processes come and go."""
    mebibytes = cpu_seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # Linux alone has PSS; elsewhere the least that a process has to itself.
            memory = process.memory_full_info()
            mebibytes += getattr(memory, "pss", memory.uss) / 2**20
            cpu_seconds += sum(process.cpu_times()[:4])
    return Used(mebibytes, cpu_seconds)
