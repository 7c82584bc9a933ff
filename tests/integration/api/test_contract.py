"""Schemathesis, with all of its checks: what OpenAPI allows is answered as described, the rest is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn

from api.main import create_app
from api.queries import CITY, ENRICHED, SALESMAN
from contracts.settings import ApiSettings
from stack.embedded import Embedded
from tests.support.api import DAY, NOON, ApiResults

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[3]
# Of each operation and phase; every run tries others.
EXAMPLES = 25


@contextmanager
def served(stack: Embedded, database: str) -> Iterator[str]:
    url = stack.postgres(database, "electrored_reader").render_as_string(hide_password=False)
    app = create_app(ApiSettings.model_validate({"results_db_url": url}), lambda: NOON)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_row_34_schemathesis_is_clean(stack: Embedded, filled: ApiResults, tmp_path: Path) -> None:
    """With something in every answer."""
    filled.city("0", "1", country="0", late_count=1, restated_at=DAY)
    filled.salesman("s1", "1")
    for sale_id in ("0", "s/1"):
        filled.sale(sale_id)
    for pipeline in (CITY, SALESMAN, ENRICHED):
        filled.watermarks(pipeline, DAY + timedelta(days=2), DAY + timedelta(days=2))
    with served(stack, filled.engine.url.database or "") as url:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json"),
                *("--checks", "all", "-n", str(EXAMPLES), "--no-color", "--no-shrink"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONWARNINGS": "",
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.support.openapi_formats",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
