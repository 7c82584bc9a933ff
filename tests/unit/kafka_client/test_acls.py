"""Rights as they are printed: each line can be pasted, and names the principal that Kafka takes a process for."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from contracts.__main__ import app
from kafka_client import acls


@pytest.fixture(autouse=True)
def _kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", "broker.example.com:9092")
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", "https://registry.example.com")


def _lines(*arguments: str) -> list[str]:
    printed = CliRunner().invoke(app, ["acls", *arguments])
    assert printed.exit_code == 0, printed.output
    return [line for line in printed.output.splitlines() if not line.startswith("#")]


def test_every_line_is_a_whole_command_with_the_settings_of_who_may_give_rights() -> None:
    lines = _lines()
    assert len(lines) == sum(len(grants) for grants in acls.GRANTS.values())
    begin = (
        "kafka-acls.sh --bootstrap-server broker.example.com:9092 --command-config admin.properties --add "
    )
    assert all(line.startswith(begin) for line in lines)
    assert {line.split("--allow-principal ")[1].split()[0] for line in lines} == {
        f"User:electrored-{process}" for process in acls.GRANTS
    }


def test_a_process_is_whom_the_service_takes_it_for() -> None:
    """On a managed service an API key belongs to an account whose name the service chose."""
    plain = _lines()
    named = _lines("--principal", "sink=User:sa-a1b2c3", "--principal", "capture=User:sa-d4e5f6")
    expected = [
        line.replace("User:electrored-sink ", "User:sa-a1b2c3 ").replace(
            "User:electrored-capture ", "User:sa-d4e5f6 "
        )
        for line in plain
    ]
    assert named == expected
    assert named != plain


@pytest.mark.parametrize(
    ("principal", "sentence"),
    [
        ("api=User:sa-a1b2c3", "api is no process; these are: setup, capture,"),
        ("sink=sa-a1b2c3", "a principal is a kind and a name"),
        ("sink", "a principal is a kind and a name"),
    ],
)
def test_a_principal_that_means_nothing_is_refused_in_one_line(principal: str, sentence: str) -> None:
    printed = CliRunner().invoke(app, ["acls", "--principal", principal])
    assert printed.exit_code == 1
    assert sentence in printed.output
    assert len(printed.output.splitlines()) == 1
