"""`python -m sources csv take` on a test's own topics, killed by itself at a chosen place if one is set.

TEST_KILL names a function as MODULE:NAME, and TEST_KILL_AT the call of it after which (with TEST_KILL_BEFORE, before
which) the process is gone as by kill -9.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))

from dataclasses import replace

from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings, from_environment
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS
from sources.csv import records
from sources.csv.ingest import take
from sources.csv.source import Topics


def die_at(place: str, number: int, before: bool) -> None:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    calls = 0

    def called(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*arguments, **more)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, called)


if block_bytes := os.environ.get("TEST_BLOCK_BYTES"):
    records.BLOCK_BYTES = int(block_bytes)
    records.MAX_RECORD_BYTES = 1_000
if kill := os.environ.get("TEST_KILL"):
    die_at(kill, int(os.environ["TEST_KILL_AT"]), "TEST_KILL_BEFORE" in os.environ)
names = os.environ["TEST_TOPICS"].split(",")
topics = Topics(
    *(replace(t, name=n) for t, n in zip((SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS), names, strict=True))
)
take(
    from_environment(KafkaSettings),
    from_environment(ResultsDbSettings),
    from_environment(CsvSettings),
    topics,
)
