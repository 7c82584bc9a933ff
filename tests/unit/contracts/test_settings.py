"""A process that lacks a setting names it, in one line, and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.settings import KafkaSettings, WindowSettings, from_environment
from tests.support.python_process import run_python


def test_every_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRORED_KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.delenv("ELECTRORED_SCHEMA_REGISTRY_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        from_environment(KafkaSettings)
    lines = str(ended.value).splitlines()
    missing = ["ELECTRORED_KAFKA_BOOTSTRAP", "ELECTRORED_SCHEMA_REGISTRY_URL"]
    assert [line.split(":")[1].strip() for line in lines] == missing


def test_a_wrong_value_is_named_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRORED_GRACE", "secret-nonsense")
    with pytest.raises(SystemExit) as ended:
        from_environment(WindowSettings)
    assert "ELECTRORED_GRACE" in str(ended.value)
    assert "secret-nonsense" not in str(ended.value)


def test_a_secret_may_be_a_file_and_a_variable_wins(tmp_path: Path) -> None:
    """In a process of its own: the folder is read from the environment once."""
    (tmp_path / "electrored_results_db_url").write_text("postgresql://from-file\n")
    show = "from contracts.settings import *; print(ResultsDbSettings().results_db_url.get_secret_value())"
    folder = {"ELECTRORED_SECRETS_DIR": str(tmp_path)}
    for environment, expected in (
        (folder, "postgresql://from-file"),
        (folder | {"ELECTRORED_RESULTS_DB_URL": "postgresql://from-variable"}, "postgresql://from-variable"),
    ):
        done = run_python("-c", show, env=environment)
        assert done.stdout.strip() == expected, done.stderr
