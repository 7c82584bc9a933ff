"""Dagster as `up` configures it: an instance on PostgreSQL, and the code server that runs are children of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

import dagster as dg
import pytest
from dagster._grpc.client import DagsterGrpcClient

from stack import databases
from stack.embedded import Embedded
from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def instance(
    stack: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance of the dagster.yaml that ships, on PostgreSQL."""
    name = f"dagster_{uuid4().hex[:12]}"
    url = databases.create_database(stack.postgres(), name)
    monkeypatch.setenv("ELECTRORED_DAGSTER_DB_URL", url.render_as_string(hide_password=False))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
    with dg.DagsterInstance.get() as instance:
        yield instance
    databases.drop_database(stack.postgres(), name)


@contextmanager
def code_server(
    port: int, *more: str, module: str = "electrored_dagster.code_location", output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process that runs are children of, ready."""
    command = ["api", "grpc", "-h", "127.0.0.1", "-p", str(port), "-m", module, *more]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "dagster"), *command],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=output,
        stderr=output,
    )
    try:
        client = DagsterGrpcClient(port=port, host="127.0.0.1")

        def is_ready() -> bool:
            assert process.poll() is None, "the code server ended"
            answer: str = client.health_check_query()  # type: ignore[no-untyped-call]
            return answer == "SERVING"

        wait_until(is_ready, what="code server", poll_seconds=0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
