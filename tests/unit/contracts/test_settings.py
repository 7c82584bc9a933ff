"""A process that lacks a setting says which, in one line, and ends."""

from __future__ import annotations

import pytest

from contracts.settings import KafkaSettings, WindowSettings, from_environment


def test_every_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRORED_KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.delenv("ELECTRORED_SCHEMA_REGISTRY_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        from_environment(KafkaSettings)
    lines = str(ended.value).splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "ELECTRORED_KAFKA_BOOTSTRAP",
        "ELECTRORED_SCHEMA_REGISTRY_URL",
    ]


def test_a_wrong_value_is_named_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRORED_GRACE", "secret-nonsense")
    with pytest.raises(SystemExit) as ended:
        from_environment(WindowSettings)
    assert "ELECTRORED_GRACE" in str(ended.value)
    assert "secret-nonsense" not in str(ended.value)
