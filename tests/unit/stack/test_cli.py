"""Errors that a person meets: one clear line, what to do, exit code 1, no traceback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from stack.layout import FORMAT
from tests.support.python_process import run_python

CLEAN = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def _electrored(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "stack.cli", *arguments, env=CLEAN | variables)


@pytest.mark.parametrize("command", ["status", "env", "down", "reset"])
def test_a_folder_that_is_not_there(tmp_path: Path, command: str) -> None:
    done = _electrored(command, "--state-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: no stack was ever started in {tmp_path / 'none'}",
        "  → start one: electrored up; or name the folder of another one with --state-dir",
    ]


@pytest.mark.parametrize(
    ("format_of_state", "command", "variables", "sentence"),
    [
        (FORMAT + 1, "up", {}, "written by a newer version"),
        (FORMAT, "env", {"ELECTRORED_RESULTS_DB_URL": "not a url"}, "ELECTRORED_RESULTS_DB_URL"),
    ],
    ids=["state of a newer version", "a wrong setting"],
)
def test_an_error_is_one_clear_line(
    tmp_path: Path, format_of_state: int, command: str, variables: dict[str, str], sentence: str
) -> None:
    (tmp_path / "stack.json").write_text(f'{{"format": {format_of_state}}}')
    done = _electrored(command, "--state-dir", str(tmp_path), **variables)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_creates_nothing(tmp_path: Path) -> None:
    done = _electrored("doctor", "--state-dir", str(tmp_path / "none"))
    assert f"{tmp_path / 'none'}, new" in done.stdout
    assert not list(tmp_path.iterdir())


def test_reset_deletes_only_a_state_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = _electrored("reset", "--yes", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ELECTRORED_KAFKA_BOOTSTRAP", "127.0.0.1:1"),
        ("ELECTRORED_SCHEMA_REGISTRY_URL", "http://127.0.0.1:1/apis/ccompat/v7"),
        ("ELECTRORED_SALES_DB_URL", "postgresql+psycopg2://me:mine@127.0.0.1:1/shop"),
        ("ELECTRORED_RESULTS_DB_URL", "postgresql+psycopg2://me:mine@127.0.0.1:1/results"),
    ],
)
def test_a_given_server_that_does_not_answer_is_reported_before_anything_starts(
    tmp_path: Path, variable: str, value: str
) -> None:
    done = _electrored("up", "--detach", "--state-dir", str(tmp_path / "state"), **{variable: value})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {variable} is set, and nothing answers there",
        "  → correct it, or unset it to have one started",
    ]
    assert not (tmp_path / "state" / "postgres").exists()


def test_what_is_printed_may_be_evaluated_by_a_shell(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://a:b@results.example/results?application_name=mine&sslmode=verify-full"
    (tmp_path / "stack.json").write_text(json.dumps({"format": FORMAT, "given": {"results_db_url": url}}))
    done = _electrored("env", "--state-dir", str(tmp_path))
    script = 'eval "$1"; printf %s "$ELECTRORED_RESULTS_DB_URL"'
    printed = subprocess.run(
        ["sh", "-c", script, "sh", done.stdout], capture_output=True, text=True, timeout=10
    )
    assert printed.stdout == url, done.stdout
