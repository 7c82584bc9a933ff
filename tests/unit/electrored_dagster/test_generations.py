"""Replays as Dagster shows them: progress, the difference, the way to its promotion."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
import yaml

from electrored_dagster.defs.generations.promoting import promote
from electrored_dagster.differences import _chart, launchpad, summary
from electrored_dagster.generations import GenerationRef, Progress, SliceRef
from streaming.replay.build import Done
from streaming.replay.difference import Difference

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def difference(**more: Any) -> Difference:
    values: dict[str, Any] = {
        "id": 1, "pipeline": "top-sales-by-city", "generation": 7, "base": 6, "promotion_number": 3,
        "generation_version": 1, "base_version": 1, "targets": {0: 10}, "fingerprint": "ab12",
        "added": 0, "removed": 0, "changed": 0, "compared": 1_200, "outside": 0,
        "before_total": {"EUR": "1.0000"}, "after_total": {"EUR": "1.0000"}, "computed_at": NOW,
    }  # fmt: skip
    return Difference(**(values | more))


def test_the_link_fills_in_what_the_job_asks_for() -> None:
    link = urlsplit(launchpad(difference()))
    assert link.path == "/locations/electrored/jobs/promote/playground/setup"
    config = yaml.safe_load(parse_qs(link.query)["config"][0])
    assert config["ops"]["promote_generation"]["config"] == {
        "pipeline": "top-sales-by-city",
        "generation": 7,
        "fingerprint": "ab12",
        "approved_by": "",
    }
    assert dg.validate_run_config(promote, config)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (difference(), "Nothing differs** in 1,200 groups."),
        (difference(changed=2, removed=1), "3 of 1,200 groups differ**: 0 added, 1 removed, 2 changed."),
        (difference(changed=2, outside=1), "1 of them lie outside of the range: it will not be promoted."),
    ],
)
def test_the_summary_counts_what_differs(found: Difference, sentence: str) -> None:
    assert sentence in summary(found)


def test_the_chart_is_a_picture() -> None:
    days = [NOW + timedelta(days=day) for day in range(40)]
    groups = [(day, kind, 3) for day in days for kind in ("added", "changed")]
    assert base64.b64decode(_chart(groups)).startswith(b"\x89PNG")
    assert base64.b64decode(_chart(groups[:1])).startswith(b"\x89PNG")


def test_progress_reports_rate_and_time_left_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    reported: list[dict[str, Any]] = []
    monkeypatch.setattr("electrored_dagster.generations.time.monotonic", lambda: clock[0])
    progress = Progress("combine.0", reported.append)
    progress.note(Done(events=500, offsets=500, of_offsets=2_500))
    assert reported == [], "once a second is too often to be read"
    clock[0] += 10
    progress.note(Done(events=1_500, offsets=1_500, of_offsets=2_500))
    # What an earlier run had done is no speed of this one.
    speed = {"events_per_second": 100, "seconds_left": 10}
    assert reported[0] == {"slice": "combine.0", "events": 1_500, "done": 0.6} | speed
    clock[0] += 1
    progress.note(Done(events=2_500, offsets=2_500, of_offsets=2_500))
    assert (reported[1]["done"], reported[1]["seconds_left"]) == (1.0, 0)


def test_a_slice_of_an_empty_partition_is_done() -> None:
    reported: list[dict[str, Any]] = []
    Progress("combine.0", reported.append).note(Done(events=0, offsets=0, of_offsets=0))
    assert reported[0]["done"] == 1.0


def test_steps_are_named_as_dagster_wants_it() -> None:
    piece = SliceRef(GenerationRef("enriched-sales", 2), "combine.payment-confirmations", 3)
    assert piece.mapping_key == "combine_payment_confirmations_3"
