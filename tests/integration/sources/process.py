"""Change capture as `python -m sources postgres` runs it, but on a test's own topics."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import sources.__main__ as process
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS
from sources.postgres import snapshot

if rows := os.environ.get("TEST_CHUNK_ROWS"):
    snapshot.CHUNK_ROWS = int(rows)
if seconds := os.environ.get("TEST_CHUNK_SECONDS"):
    read, chunk_seconds = snapshot.Snapshot.read, float(seconds)

    def slowly(self: snapshot.Snapshot) -> snapshot.Chunk | None:
        time.sleep(chunk_seconds)
        return read(self)

    snapshot.Snapshot.read = slowly  # type: ignore[method-assign]
events, positions, dead_letters = os.environ["TEST_TOPICS"].split(",")
vars(process).update(
    SALES_EVENTS=replace(SALES_EVENTS, name=events),
    SOURCE_POSITIONS=replace(SOURCE_POSITIONS, name=positions),
    DEAD_LETTERS=replace(DEAD_LETTERS, name=dead_letters),
)
process.app(["postgres"])
