"""Dagster's code server as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dagster._grpc.client import DagsterGrpcClient

from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parents[2]


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
