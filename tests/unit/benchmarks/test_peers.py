"""A machine that lacks a peer: the row names what to install."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import peers


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_without_kcat() -> None:
    with pytest.raises(peers.Missing, match="no kcat"):
        peers.kcat(cast(Any, None), 1)


def test_without_a_jdk() -> None:
    with pytest.raises(peers.Missing, match="no JDK"):
        peers.kafka_streams(cast(Any, None), 1)


def test_a_jdk_of_java_home_comes_before_that_of_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the stack takes its runtime."""
    for folder in (tmp_path, tmp_path / "jdk" / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "javac").write_text("#!/bin/sh\nexit 1\n")
        (folder / "javac").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert peers.javac() == str(tmp_path / "jdk" / "bin" / "javac")
    monkeypatch.delenv("JAVA_HOME")
    assert peers.javac() == str(tmp_path / "javac")
