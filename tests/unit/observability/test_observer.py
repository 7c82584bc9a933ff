"""The observer: what was not answered is not shown, and one look does not hold up another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from observability.lineage.notes import Begun, Notes
from observability.looks import Sample, kind_of, of_inbox, of_lineage
from observability.observer import HELP, Observer


def test_what_a_look_found_is_shown_until_it_gets_no_answer() -> None:
    answers = iter([[Sample("electrored_active_generation", 3, {"pipeline": "p"})], None])

    def look() -> Iterator[Sample]:
        found = next(answers)
        if found is None:
            raise OSError("away")
        return iter(found)

    registry = CollectorRegistry()
    observer = Observer({"results": look, "never": lambda: iter(())})
    registry.register(observer)
    observer.look("results")
    assert registry.get_sample_value("electrored_active_generation", {"pipeline": "p"}) == 3
    assert registry.get_sample_value("electrored_look_up", {"at": "results"}) == 1
    observer.look("results")
    assert registry.get_sample_value("electrored_active_generation", {"pipeline": "p"}) is None
    assert registry.get_sample_value("electrored_look_up", {"at": "results"}) == 0
    assert registry.get_sample_value("electrored_look_up", {"at": "never"}) is None, "nobody has looked yet"


def test_the_oldest_file_that_waits_tells_its_age_and_what_is_not_ours_does_not(tmp_path: Path) -> None:
    assert [sample.value for sample in of_inbox(tmp_path)] == [0, 0]
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "processed").mkdir()
    (tmp_path / "sales_1.csv").write_text("")
    files, age = of_inbox(tmp_path)
    assert files.value == 1
    assert 0 <= age.value < 60


def test_events_that_wait_are_counted_by_process_and_backend(tmp_path: Path) -> None:
    assert list(of_lineage(tmp_path / "nobody-has-told-yet")) == []
    (tmp_path / "dagster" / "http").mkdir(parents=True)
    (tmp_path / "sink" / "kafka").mkdir(parents=True)
    Notes(tmp_path / "sink").begin(Begun("of-a-run", "a job"))
    (tmp_path / "sink" / "lock").write_text("")
    for name in ("1.START.json", "2.COMPLETE.json", "3.COMPLETE.json.part", "sending.lock"):
        (tmp_path / "dagster" / "http" / name).write_text("{}")
    found = {(one.labels["outbox"], one.labels["lane"]): one.value for one in of_lineage(tmp_path)}
    assert found == {("dagster", "http"): 2, ("sink", "kafka"): 0}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("city is empty", "city is empty"),
        ("amount: '12,x' is no number", "amount"),
        ("line 17 has 9 fields", "line has fields"),
        ("line 3: amount is no number", "amount is no number"),
        ("sale: amount has more than 14 digits", "amount has more than digits"),
        ("reversal: city is empty", "city is empty"),
        ("behind cursor 'ab12': no currency", "no currency"),
        ("'' ", "other"),
        ("x" * 500, "x" * 60),
    ],
)
def test_a_reason_is_told_without_what_was_refused(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind


def test_names_follow_prometheus_conventions() -> None:
    units = ("_seconds", "_bytes", "_total")
    counts = (
        "_up",
        "_events",
        "_files",
        "_offsets",
        "_rows",
        "_generation",
        "_sources",
        "_sales",
        "_changed",
        "_failed",
        "_hour",
        "_active",
        "_status",
    )
    assert all(name.startswith("electrored_") and name.endswith(units + counts) for name in HELP)
