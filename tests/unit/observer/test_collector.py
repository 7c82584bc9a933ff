"""The observer: what was not answered is not shown, and no probe holds up another."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from lineage.outbox import OpenRun, Outbox
from observability.waits import WAITS
from observer.collector import HELP, Observer
from observer.probes import Inbox, Sample, kind_of, probe_lineage


def test_what_a_look_found_is_shown_until_it_gets_no_answer() -> None:
    answers = iter([[Sample("electrored_active_generation", 3, {"pipeline": "p"})], None])

    def probe() -> Iterator[Sample]:
        found = next(answers)
        if found is None:
            raise OSError("away")
        return iter(found)

    registry = CollectorRegistry()
    observer = Observer({"results": probe, "never": lambda: iter(())})
    registry.register(observer)
    observer.probe("results")
    assert registry.get_sample_value("electrored_active_generation", {"pipeline": "p"}) == 3
    assert registry.get_sample_value("electrored_look_up", {"at": "results"}) == 1
    observer.probe("results")
    assert registry.get_sample_value("electrored_active_generation", {"pipeline": "p"}) is None
    assert registry.get_sample_value("electrored_look_up", {"at": "results"}) == 0
    assert registry.get_sample_value("electrored_look_up", {"at": "never"}) is None, "nobody has looked yet"


def test_a_server_that_gives_no_answer_is_waited_for() -> None:
    """Each probe ends its own wait, even on one server."""
    answers = iter([OSError("away"), None])

    def probe() -> Iterator[Sample]:
        if (error := next(answers)) is not None:
            raise error
        return iter(())

    observer = Observer({"results": probe, "slot": lambda: iter(())})
    observer.probe("results")
    observer.probe("slot")
    (wait,) = WAITS.current()
    assert (wait.on, wait.detail) == ("postgres", "the probe of results failed: away")
    observer.probe("results")
    assert WAITS.current() == []


def test_row_13_files_that_wait_and_names_that_are_not_taken_are_counted(tmp_path: Path) -> None:
    """Status shows the names as what the observer waits for."""
    probe = Inbox(tmp_path).probe
    assert [sample.value for sample in probe()] == [0, 0, 0]
    (tmp_path / "README.txt").write_text("")
    (tmp_path / "processed").mkdir()
    (tmp_path / "processed" / "sales_0.csv").write_text("")
    for name in ("sales_1.csv", "SALES_2.CSV", "Sales_3.csv.gz", ".sales_4.csv", "sales_5.csv.part"):
        (tmp_path / name).write_text("")
    files, age, unrecognised = probe()
    assert (files.value, unrecognised.value) == (3, 0)
    assert 0 <= age.value < 60
    (tmp_path / "sales-11.csv").write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "sales_12.csv").write_text("")
    *_, unrecognised = probe()
    assert unrecognised.value == 2
    (wait,) = WAITS.current()
    assert wait.detail.startswith(
        "sales-11.csv is not recognised: the inbox takes sales_*.csv or sales_*.csv.gz"
    )
    assert wait.detail.endswith("(and 1 more)")
    (tmp_path / "sales-11.csv").unlink()
    (tmp_path / "sub" / "sales_12.csv").unlink()
    *_, unrecognised = probe()
    assert unrecognised.value == 0
    assert WAITS.current() == []


def test_row_12_a_file_that_is_written_to_all_the_time_grows_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Inbox(tmp_path).probe
    path = tmp_path / "sales_1.csv"
    path.write_text("a")
    list(probe())
    began = time.time()
    path.write_text("more")
    monkeypatch.setattr(time, "time", lambda: began + 700)
    os.utime(path)
    _, age, _ = probe()
    assert age.value >= 699


def test_events_that_wait_are_counted_by_process_and_backend(tmp_path: Path) -> None:
    assert list(probe_lineage(tmp_path / "nobody-has-told-yet")) == []
    dagster, sink = Outbox(tmp_path, "dagster", is_alone=False), Outbox(tmp_path, "sink")
    dagster.add_lane("http")
    sink.add_lane("kafka")
    sink.begin(OpenRun("of-a-run", "a job"))
    for state in ("START", "COMPLETE"):
        dagster.put("http", state, "{}")
    # While processes have it open, and after the last one has closed it.
    for closing in (dagster, sink, None):
        found = {(one.labels["outbox"], one.labels["lane"]): one.value for one in probe_lineage(tmp_path)}
        assert found == {("dagster", "http"): 2, ("sink", "kafka"): 0}
        if closing is not None:
            closing.close()


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
        "_groups",
        "_sales",
        "_changed",
        "_failed",
        "_hour",
        "_active",
        "_status",
        "_kept",
    )
    assert all(name.startswith("electrored_") and name.endswith(units + counts) for name in HELP)
