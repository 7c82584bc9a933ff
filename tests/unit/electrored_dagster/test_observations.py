"""From a reading to events: each asset with its numbers, and only what may have changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from contracts.topics import PUBLIC
from electrored_dagster.definitions import definitions
from electrored_dagster.observations import (
    DUPLICATES_CHECK,
    FUTURE_CHECK,
    HEARTBEAT,
    NEGATIVE_CHECK,
    OVERLAP_CHECK,
    RULES_CHECK,
    Event,
    changed,
)
from observer.platform_status import Findings, PipelineStatus, PlatformStatus, SourcePosition

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CITY, SALESMAN, ENRICHED = "top-sales-by-city", "top-salesman-by-country", "enriched-sales"


def pipeline(watermark: datetime = NOW) -> PipelineStatus:
    return PipelineStatus(
        generation=1,
        promotion_number=3,
        apply_number=40,
        watermark=watermark,
        lags={("combine", "a", 0): 3, ("combine", "a", 1): 2, ("merge", "b", 0): 2, ("sink", "c", 0): 1},
    )


def platform() -> PlatformStatus:
    topics = {topic.name: 100 for topic in PUBLIC}
    for name in (CITY, SALESMAN, ENRICHED):
        topics |= {f"{name}.g1.partials": 60, f"{name}.g1.state": 50, f"{name}.g1.progress": 10}
    source = SourcePosition(next_seq=90, frontier=NOW, detail='{"lsn": "0/16B3748"}')
    return PlatformStatus(
        topics, {"postgres": source}, {name: pipeline() for name in (CITY, SALESMAN, ENRICHED)}, Findings()
    )


@dataclass
class Observer:
    """What a sensor reports of one reading after the other."""

    cursor: str | None = None

    def events(self, status: PlatformStatus, at: datetime = NOW) -> list[Event]:
        events, self.cursor = changed(status, self.cursor, at)
        return events

    def checks(self, check: str, status: PlatformStatus) -> list[dg.AssetCheckEvaluation]:
        evaluations = [event for event in self.events(status) if isinstance(event, dg.AssetCheckEvaluation)]
        return [event for event in evaluations if event.check_name == check]


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def started(observer: Observer) -> Observer:
    """After its first reading."""
    observer.events(platform())
    return observer


def keys(events: list[Event]) -> set[str]:
    return {event.asset_key.to_user_string() for event in assets(events)}


def assets(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, dg.AssetCheckEvaluation)]


def one(events: list[Event], key: str) -> Event:
    (event,) = [event for event in assets(events) if event.asset_key.to_user_string() == key]
    return event


def test_the_first_reading_is_of_every_asset_of_the_graph(observer: Observer) -> None:
    graph = {spec.key.to_user_string() for spec in definitions().resolve_all_asset_specs()}
    # What waits in the inbox, what a poll brought and what a replay changes is reported by those that read it.
    others = {"files/inbox", "results_db/public/csv_sales", "soap/payments"}
    assert keys(observer.events(platform())) == {key for key in graph - others if "/differences/" not in key}


def test_answers_show_watermark_lag_and_generation(observer: Observer) -> None:
    event = one(observer.events(platform()), "results_db/public/top_sales_by_city")
    assert isinstance(event, dg.AssetMaterialization), "only materialisations count for freshness"
    assert event.metadata["generation"].value == 1
    assert event.metadata["watermark"].value == NOW.timestamp()
    assert event.metadata["sink_offsets_behind"].value == 1


def test_internal_topics_show_which_generation_and_how_far_behind(observer: Observer) -> None:
    events = observer.events(platform())
    partials = one(events, "kafka/top-sales-by-city.partials")
    assert partials.metadata["topic"].value == "top-sales-by-city.g1.partials"
    assert partials.metadata["end_offset"].value == 60
    assert partials.metadata["writer_offsets_behind"].value == 5
    assert one(events, "kafka/top-sales-by-city.state").metadata["writer_offsets_behind"].value == 2


def test_nothing_changed_is_no_event(started: Observer) -> None:
    cursor = started.cursor
    assert (started.events(platform(), NOW + timedelta(minutes=1)), started.cursor) == ([], cursor)


def idle(minutes: int) -> PlatformStatus:
    """Without sales, positions, partials and state still grow, because frontier and watermark travel in them."""
    later = NOW + timedelta(minutes=minutes)
    first = platform()
    grown = {n: e + minutes if ".g1." in n or n == "source-positions" else e for n, e in first.topics.items()}
    source = replace(first.sources["postgres"], frontier=later)
    return PlatformStatus(
        grown, {"postgres": source}, {CITY: pipeline(later), SALESMAN: pipeline(later)}, Findings()
    )


def test_an_idle_platform_is_silent_except_for_a_heartbeat_of_its_answers(started: Observer) -> None:
    assert started.events(idle(1), NOW + timedelta(minutes=1)) == []
    assert keys(started.events(idle(10), NOW + HEARTBEAT)) == {
        "results_db/public/top_sales_by_city",
        "results_db/public/top_salesman_by_country",
    }
    assert started.events(idle(11), NOW + HEARTBEAT + timedelta(minutes=1)) == []


def test_a_watermark_that_stands_still_gives_no_heartbeat(started: Observer) -> None:
    assert started.events(platform(), NOW + timedelta(hours=2)) == [], "so that freshness fails"


def test_a_sale_is_reported_of_every_asset_that_it_may_have_changed(started: Observer) -> None:
    first = platform()
    topics = first.topics | {"sales-events": 101, "top-sales-by-city": 101}
    source = replace(first.sources["postgres"], next_seq=91)
    pipelines = {CITY: pipeline(), SALESMAN: pipeline()}
    status = PlatformStatus(topics, {"postgres": source}, pipelines, Findings())
    assert keys(started.events(status, NOW + timedelta(minutes=1))) == {
        "sales_db/public/sales",
        "kafka/sales-events",
        "kafka/source-positions",
        *(f"kafka/{name}.{role}" for name in (CITY, SALESMAN) for role in ("partials", "state")),
        "kafka/top-sales-by-city",
        "results_db/public/top_sales_by_city",
        "results_db/public/top_salesman_by_country",
    }


def test_before_anything_was_captured_topics_are_shown_and_the_unknown_is_left_out(
    observer: Observer,
) -> None:
    topics = {topic.name: 0 for topic in PUBLIC} | {
        f"{CITY}.g1.{role}": 0 for role in ("partials", "state", "progress")
    }
    nothing = PlatformStatus(topics, {}, {CITY: replace(pipeline(), watermark=None)}, Findings())
    events = observer.events(nothing)
    assert "sales_db/public/sales" not in keys(events)
    assert "watermark" not in one(events, "results_db/public/top_sales_by_city").metadata


def test_ids_of_several_sources_fail_the_check_when_their_number_changes(observer: Observer) -> None:
    def checks(*ids: str) -> list[dg.AssetCheckEvaluation]:
        return observer.checks(OVERLAP_CHECK, replace(platform(), overlap=Findings(len(ids), ids)))

    assert [check.passed for check in checks()] == [True]
    assert checks() == []
    (check,) = checks("a", "b")
    assert (check.passed, check.metadata["first"].value) == (False, "a, b")
    assert checks("a", "b") == []
    assert [check.passed for check in checks()] == [True]


def test_groups_below_zero_fail_the_check_of_their_answer_and_are_told_when_their_number_changes(
    observer: Observer,
) -> None:
    def checks(count: int) -> list[dg.AssetCheckEvaluation]:
        negative = {CITY: Findings(count, ("2026-11-22 DE Berlin EUR",) * count)}
        return observer.checks(NEGATIVE_CHECK, replace(platform(), negative=negative))

    (check,) = checks(0)
    assert check.passed
    assert check.asset_key == dg.AssetKey(["results_db", "public", "top_sales_by_city"])
    assert checks(0) == []
    (check,) = checks(1)
    assert (check.passed, check.metadata["first"].value) == (False, "2026-11-22 DE Berlin EUR")
    assert checks(1) == []


def test_row_21_events_that_are_dropped_fail_the_check_when_their_number_grows(observer: Observer) -> None:
    def checks(observer: Observer, counts: dict[str, dict[str, int]]) -> dict[str, dg.AssetCheckEvaluation]:
        status = platform()
        pipelines = {
            name: replace(one, duplicates=counts.get(name, {})) for name, one in status.pipelines.items()
        }
        evaluations = observer.checks(DUPLICATES_CHECK, replace(status, pipelines=pipelines))
        return {"/".join(check.asset_key.path): check for check in evaluations}

    sales, payments = "kafka/sales-events", "kafka/payment-confirmations"
    first = checks(observer, {})
    assert {name: check.passed for name, check in first.items()} == {sales: True, payments: True}
    assert checks(observer, {}) == {}
    dropped = {ENRICHED: {"payment-confirmations": 14, "sales-events": 0}}
    grown = checks(observer, dropped)
    assert list(grown) == [payments]
    assert not grown[payments].passed
    assert (grown[payments].description or "").endswith("14 of enriched-sales")
    assert grown[payments].metadata["dropped"].value == {ENRICHED: 14}
    assert checks(observer, dropped) == {}, "reported once"
    # A generation that dropped fewer was promoted.
    assert checks(observer, {})[payments].passed
    # What was dropped before the first reading is reported as well.
    assert not checks(Observer(), dropped)[payments].passed


def test_row_29_a_sale_in_the_future_fails_its_check_until_it_is_taken_back(observer: Observer) -> None:
    assert [check.passed for check in observer.checks(FUTURE_CHECK, platform())] == [True]
    typo = replace(platform(), future=Findings(2, ("s1 (2126-01-01 12:00 UTC)", "s2 (2126-01-02 12:00 UTC)")))
    (check,) = observer.checks(FUTURE_CHECK, typo)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "s1 (2126-01-01 12:00 UTC)" in str(check.metadata["first"].value)
    assert observer.checks(FUTURE_CHECK, typo) == [], "once"
    assert [check.passed for check in observer.checks(FUTURE_CHECK, platform())] == [True]


def test_row_30_rules_of_a_zone_that_changed_fail_a_check_of_the_answer(observer: Observer) -> None:
    assert [check.passed for check in observer.checks(RULES_CHECK, platform())] == [True] * 3
    status = platform()
    status.pipelines[CITY] = replace(status.pipelines[CITY], is_outdated=True)
    (check,) = observer.checks(RULES_CHECK, status)
    assert not check.passed
    assert check.asset_key.to_user_string() == "results_db/public/top_sales_by_city"
    assert f"electrored replay {CITY} --time-zone" in (check.description or "")
    assert observer.checks(RULES_CHECK, status) == []
