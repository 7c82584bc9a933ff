"""Row 23: the archive that puts schemas back under all ids that they had."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any

from kafka_client import apicurio


def entries(schemas: Mapping[str, Collection[tuple[int, str]]]) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(apicurio.archive(schemas))) as made:
        assert len(set(made.namelist())) == len(made.namelist())
        return {name: made.read(name) for name in made.namelist()}


def of_kind(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [json.loads(content) for name, content in found.items() if name.endswith(f".{kind}.json")]


def test_row_23_every_id_of_a_subject_is_a_version_with_a_text_of_its_own() -> None:
    found = entries({"a": [(3, '"long"'), (11, '"long"')], "b": [(11, '"long"')], "c": [(5, '"int"')]})
    contents = {one["contentId"]: one["contentHash"] for one in of_kind(found, "Content")}
    texts = {number: found[f"content/{digest}.Content.data"].decode() for number, digest in contents.items()}
    # Exactly what our processes register is the newest: they go on with that.
    assert texts == {3: '"long"\t\t', 11: '"long"', 5: '"int"'}
    assert all(sha256(texts[number].encode()).hexdigest() == digest for number, digest in contents.items())
    versions = [(one["artifactId"], one["contentId"]) for one in of_kind(found, "ArtifactVersion")]
    assert sorted(versions) == [("a", 3), ("a", 11), ("b", 11), ("c", 5)]
    assert [one["versions"] for one in of_kind(found, "Branch")] == [["3", "11"], ["11"], ["5"]]


def test_row_23_a_second_archive_has_other_global_ids() -> None:
    def ids() -> set[int]:
        return {one["globalId"] for one in of_kind(entries({"a": [(3, "1"), (4, "2")]}), "ArtifactVersion")}

    first, second = ids(), ids()
    assert len(first) == len(second) == 2
    assert not first & second


def test_row_23_a_text_that_the_registry_has_already_comes_as_another() -> None:
    with zipfile.ZipFile(io.BytesIO(apicurio.archive({"a": [(3, "1")]}, {"1"}))) as made:
        texts = [made.read(name) for name in made.namelist() if name.endswith(".data")]
    assert texts == [b"1\t\t"]
