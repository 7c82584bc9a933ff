"""`python -m benchmarks.groups [GROUPS]`: what a worker's store takes of disk and memory, for groups of salesmen.

Values are a real total's bytes, keys a real group's; both are written in commits of 5,000 groups and then read back at
random, as merge does. Memory is the process's resident size above what it had before.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import psutil

from streaming.engine.state import StateStore

GROUPS_A_COMMIT = 5_000
# An encoded total of top-salesman-by-country with a name of twelve letters.
VALUE_BYTES = 120


def _key(number: int) -> bytes:
    return f"2026-11-09T00:00:00Z|DE|salesman-{number:010d}|EUR".encode()


def _resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


def main(groups: int) -> None:
    noise = random.Random(0).randbytes(GROUPS_A_COMMIT * VALUE_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore(Path(folder), "a-topic")
        store.open(0, groups)
        order = list(range(groups))
        random.Random(1).shuffle(order)
        before = _resident()
        began = time.process_time()
        for first in range(0, groups, GROUPS_A_COMMIT):
            numbers = order[first : first + GROUPS_A_COMMIT]
            at = (number % GROUPS_A_COMMIT * VALUE_BYTES for number in numbers)
            values = (noise[place : place + VALUE_BYTES] for place in at)
            store.put_many(0, dict(zip(map(_key, numbers), values, strict=True)))
            store.settle({0: first})
        written = time.process_time() - began
        began = time.process_time()
        for _ in range(20):
            store.get_many(0, [_key(random.randrange(groups)) for _ in range(GROUPS_A_COMMIT)])
        read = (time.process_time() - began) / 20 / GROUPS_A_COMMIT
        memory = _resident() - before
        store.close_all()
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 2**20
    print(
        f"{groups:,} groups: {disk:.0f} MiB of disk, {memory:.0f} MiB of memory; "
        f"written in {written:.1f} CPU-seconds, {read * 1e6:.1f} µs to read one"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
