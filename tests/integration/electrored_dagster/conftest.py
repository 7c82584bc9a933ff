"""Dagster as `up` configures it: an instance on PostgreSQL, and the code server that runs are children of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from stack import databases
from stack.embedded import Embedded
from tests.support.code_server import PROJECT


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
