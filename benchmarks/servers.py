"""Kafka, registry and PostgreSQL of a measurement's own, gone afterwards."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.settings import KafkaSettings
from stack import databases
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


def results_url(stack: Embedded) -> str:
    """The results database, as the role that writes it."""
    url = stack.postgres(databases.RESULTS, databases.WRITER).set(drivername="postgresql+psycopg2")
    return url.render_as_string(hide_password=False)


def clean_environment() -> dict[str, str]:
    """This environment without ELECTRORED_*: everything measured is started here."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ELECTRORED_")}


def environment(kafka: KafkaSettings, results: str) -> dict[str, str]:
    """That of a process of ours on these servers."""
    return clean_environment() | {
        "ELECTRORED_KAFKA_BOOTSTRAP": kafka.kafka_bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": kafka.schema_registry_url,
        "ELECTRORED_RESULTS_DB_URL": results,
        "ELECTRORED_LOG_LEVEL": "WARNING",
    }
