"""Kafka, registry and PostgreSQL of a measurement's own, gone afterwards."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.embedded import Embedded, running


@contextmanager
def servers() -> Iterator[Embedded]:
    """Start them, and stop them after the last client: one that outlives its broker logs to stderr for ever."""
    folder = Path(tempfile.mkdtemp(prefix="electrored-bench-"))
    try:
        with running(folder) as stack:
            try:
                yield stack
            finally:
                # An admin client and a producer have no `close`; what holds them in a cycle goes here.
                gc.collect()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
