"""Replay, promotion, rollback and retirement as Dagster's jobs, beside a live worker and sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import dagster as dg
import pytest

from contracts import datasets
from contracts.settings import KafkaSettings, ReplaySettings
from electrored_dagster import generations
from electrored_dagster.asset_specs import key
from electrored_dagster.definitions import definitions
from electrored_dagster.defs.generations.checking import NAME
from lineage.emitter import ProgressCell
from lineage.model import Job
from streaming.generations.catalog import load
from streaming.replay import build
from streaming.replay.build import Slice
from streaming.replay.request import Request
from tests.support.live_harness import LiveHarness


@cache
def job_of(name: str) -> dg.JobDefinition:
    return definitions().resolve_job_def(name)


@pytest.fixture(autouse=True)
def environment(live: LiveHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = live.harness.kafka
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", kafka.kafka_bootstrap)
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", kafka.schema_registry_url)
    monkeypatch.setenv("ELECTRORED_RESULTS_DB_URL", live.results.results_db_url.get_secret_value())
    monkeypatch.setenv("ELECTRORED_STATE_DIR", str(live.folder / "platform"))
    # Slices run in this process, which is not theirs alone.
    monkeypatch.setattr(build, "be_nice", lambda: None)


def run(instance: dg.DagsterInstance, job: str, op: str, **config: Any) -> dg.ExecuteInProcessResult:
    """The job with that config of its first op, as the launchpad takes it."""
    return job_of(job).execute_in_process(
        run_config={"ops": {op: {"config": config}}}, instance=instance, raise_on_error=False
    )


def words(result: dg.ExecuteInProcessResult) -> str:
    """The failed step's error."""
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    assert error is not None
    return error.message


def test_a_generation_s_life_as_a_person_leads_it_on_dagsters_pages(
    live: LiveHarness, instance: dg.DagsterInstance
) -> None:
    pipeline = live.harness.pipeline.name
    live.harness.feed(2000)
    with live.running():
        live.settled(1)
        replayed = run(instance, "replay", "begin", pipeline=pipeline, reason="proof")
        assert replayed.success
        assert (live.state(1), live.state(2)) == ("active", "candidate")
        shown = _shown(instance, pipeline)
        assert "Nothing differs" in shown["what"].value
        assert shown["events"].value == 2000
        progress = instance.fetch_observations(key(datasets.difference(pipeline)), limit=99).records
        slices = {record.asset_observation.metadata["slice"].value for record in progress}  # type: ignore[union-attr]
        assert slices == {str(piece) for step in _slices(live, 2) for piece in step}

        assert run(instance, "replay", "begin", pipeline=pipeline, reason="proof").success, (
            "it is compared anew"
        )
        shown = _shown(instance, pipeline)
        again = run(instance, "replay", "begin", pipeline=pipeline, reason="once more")
        assert "waits: promote or retire it first" in words(again)
        seen = {"pipeline": pipeline, "generation": 2, "fingerprint": shown["fingerprint"].value}
        nobody = run(instance, "promote", "promote_generation", **seen, approved_by=" ")
        assert "who approves it" in words(nobody)
        stale = run(
            instance, "promote", "promote_generation", **(seen | {"fingerprint": "0"}), approved_by="Ada"
        )
        assert "the fingerprint is not that of the newest difference" in words(stale)
        assert live.state(1) == "active"

        assert run(instance, "promote", "promote_generation", **seen, approved_by="Ada").success
        assert (live.state(1), live.state(2)) == ("standby", "active")
        kept = run(instance, "retire", "retire_generation", pipeline=pipeline, generation=2)
        assert f"{pipeline} g2 is active" in words(kept)
        back = run(
            instance, "rollback", "roll_back", pipeline=pipeline, reason="a mistake", approved_by="Ada"
        )
        assert back.success
        assert (live.state(1), live.state(2)) == ("active", "standby")
        assert run(instance, "retire", "retire_generation", pipeline=pipeline, generation=2).success
        assert live.state(2) == "retired"
        live.harness.feed(200)
        live.settled(1)


@pytest.mark.soak
def test_parameters_that_are_asked_for_are_computed_and_shown(
    live: LiveHarness, instance: dg.DagsterInstance
) -> None:
    pipeline = live.harness.pipeline.name
    live.harness.feed(500)
    with live.running():
        live.settled(1)
        config = {"pipeline": pipeline, "reason": "their days", "time_zone": "Asia/Kathmandu"}
        ranged = run(instance, "replay", "begin", **config, range_start="2026-03-01", range_end="2026-03-02")
        assert "a replay with other ones has no range" in words(ranged)
        no_date = run(
            instance, "replay", "begin", pipeline=pipeline, reason="-", range_start="then", range_end="now"
        )
        assert "range_start is no date and no time: 'then'" in words(no_date)
        assert live.numbers() == [1], "what is refused makes nothing"
        assert run(instance, "replay", "begin", **config).success
        shown = _shown(instance, pipeline)
        groups = len([1 for _, count in live.harness.expected().values() if count])
        assert shown["removed"].value == groups, "no day of Kathmandu is one of UTC's"
        assert shown["added"].value > 0
        assert "data:image/png;base64," in shown["chart"].value
        assert len(shown["greatest_changes"].records) == 20


@pytest.mark.soak
def test_a_replay_of_what_is_active_is_proven_identical_and_leaves_nothing(live: LiveHarness) -> None:
    pipeline = live.harness.pipeline.name
    live.harness.feed(800)

    heard: list[tuple[str, ProgressCell]] = []

    def told(job: Callable[[], Job], saying: ProgressCell) -> AbstractContextManager[None]:
        heard.append((job().name, saying))
        return nullcontext()

    def proven() -> Any:
        replay = ReplaySettings(state_dir=live.folder / "platform")
        return generations.replay_and_diff(
            KafkaSettings(), live.harness.results, replay, pipeline, NAME, lambda _: None, told
        )

    with live.running():
        live.settled(1)
        assert generations.replaying(live.harness.results, but="somebody") == []
        request = Request(pipeline, "left by a check that was killed", NAME)
        left = build.begin(live.harness.kafka, live.harness.results, request)
        assert generations.replaying(live.harness.results, but="somebody") == [pipeline]
        assert generations.replaying(live.harness.results, but=NAME) == []
        assert proven().is_empty
        assert [live.state(number) for number in live.numbers()] == ["active", "retired", "retired"]
        assert left.number == 2
        # Each slice is a run that reports its rows.
        slices = [piece for step in _slices(live, 3) for piece in step]
        assert [name for name, _ in heard] == [f"{pipeline}.g3.replay"] * len(slices)
        names = load(live.harness.results, pipeline, 3).names
        written = sum((Counter(saying.report.rows) for _, saying in heard), Counter())
        assert {dataset.name for dataset in written} >= {names.partials.name, names.state.name}
        events = sum(saying.report.counts.get("combine", {}).get("events", 0) for _, saying in heard)
        assert events == 800
        # A total that no event explains.
        with live.harness.results.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE city_totals SET total = total + 1 WHERE ctid = "
                "(SELECT ctid FROM city_totals WHERE generation = 1 AND sales_count <> 0 LIMIT 1)"
            )
        found = proven()
        assert (found.changed, found.added, found.removed) == (1, 0, 0)


def _shown(instance: dg.DagsterInstance, pipeline: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(key(datasets.difference(pipeline)))
    assert event is not None
    assert event.asset_materialization is not None
    return dict(event.asset_materialization.metadata)


def _slices(live: LiveHarness, number: int) -> tuple[list[Slice], list[Slice]]:
    return build.slices(load(live.harness.results, live.harness.pipeline.name, number))
