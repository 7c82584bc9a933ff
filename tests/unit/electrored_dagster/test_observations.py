"""From a reading to events: each asset with its numbers, and only what may have changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg

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
from observer.platform_status import (
    Findings,
    PipelineStatus,
    PlatformStatus,
    SourcePosition,
)

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


def standing() -> PlatformStatus:
    topics = {topic.name: 100 for topic in PUBLIC}
    for name in (CITY, SALESMAN, ENRICHED):
        topics |= {f"{name}.g1.partials": 60, f"{name}.g1.state": 50, f"{name}.g1.progress": 10}
    source = SourcePosition(next_seq=90, frontier=NOW, detail='{"lsn": "0/16B3748"}')
    return PlatformStatus(
        topics, {"postgres": source}, {name: pipeline() for name in (CITY, SALESMAN, ENRICHED)}, Findings()
    )


def keys(events: list[Event]) -> set[str]:
    return {event.asset_key.to_user_string() for event in assets(events)}


def assets(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, dg.AssetCheckEvaluation)]


def evaluations(events: list[Event], check: str) -> list[dg.AssetCheckEvaluation]:
    found = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
    return [event for event in found if event.check_name == check]


def one(events: list[Event], key: str) -> Event:
    (event,) = [event for event in assets(events) if event.asset_key.to_user_string() == key]
    return event


def test_the_first_reading_tells_of_every_asset_of_the_graph() -> None:
    events, _ = changed(standing(), None, NOW)
    graph = {spec.key.to_user_string() for spec in definitions().resolve_all_asset_specs()}
    # What waits in the inbox, what a poll brought and what a replay changes is told by who looked.
    told = {"files/inbox", "results_db/public/csv_sales", "soap/payments"}
    assert keys(events) == {key for key in graph - told if "/differences/" not in key}


def test_answers_show_watermark_lag_and_generation() -> None:
    events, _ = changed(standing(), None, NOW)
    event = one(events, "results_db/public/top_sales_by_city")
    assert isinstance(event, dg.AssetMaterialization), "only materialisations count for freshness"
    assert event.metadata["generation"].value == 1
    assert event.metadata["watermark"].value == NOW.timestamp()
    assert event.metadata["sink_offsets_behind"].value == 1


def test_internal_topics_show_which_generation_and_how_far_behind() -> None:
    events, _ = changed(standing(), None, NOW)
    partials = one(events, "kafka/top-sales-by-city.partials")
    assert partials.metadata["topic"].value == "top-sales-by-city.g1.partials"
    assert partials.metadata["end_offset"].value == 60
    assert partials.metadata["writer_offsets_behind"].value == 5
    assert one(events, "kafka/top-sales-by-city.state").metadata["writer_offsets_behind"].value == 2


def test_nothing_changed_is_no_event() -> None:
    _, cursor = changed(standing(), None, NOW)
    events, after = changed(standing(), cursor, NOW + timedelta(minutes=1))
    assert (events, after) == ([], cursor)


def idle(minutes: int) -> PlatformStatus:
    """Without sales, positions, partials and state still grow, because frontier and watermark travel in them."""
    later = NOW + timedelta(minutes=minutes)
    first = standing()
    grown = {n: e + minutes if ".g1." in n or n == "source-positions" else e for n, e in first.topics.items()}
    source = replace(first.sources["postgres"], frontier=later)
    return PlatformStatus(
        grown, {"postgres": source}, {CITY: pipeline(later), SALESMAN: pipeline(later)}, Findings()
    )


def test_an_idle_platform_is_silent_except_for_a_heartbeat_of_its_answers() -> None:
    _, cursor = changed(standing(), None, NOW)
    events, cursor = changed(idle(1), cursor, NOW + timedelta(minutes=1))
    assert events == []
    events, cursor = changed(idle(10), cursor, NOW + HEARTBEAT)
    assert keys(events) == {
        "results_db/public/top_sales_by_city",
        "results_db/public/top_salesman_by_country",
    }
    events, _ = changed(idle(11), cursor, NOW + HEARTBEAT + timedelta(minutes=1))
    assert events == []


def test_a_watermark_that_stands_still_gives_no_heartbeat() -> None:
    _, cursor = changed(standing(), None, NOW)
    events, _ = changed(standing(), cursor, NOW + timedelta(hours=2))
    assert events == [], "so that freshness fails"


def test_a_sale_is_reported_of_every_asset_that_it_may_have_changed() -> None:
    _, cursor = changed(standing(), None, NOW)
    first = standing()
    topics = first.topics | {"sales-events": 101, "top-sales-by-city": 101}
    source = replace(first.sources["postgres"], next_seq=91)
    pipelines = {CITY: pipeline(), SALESMAN: pipeline()}
    events, _ = changed(
        PlatformStatus(topics, {"postgres": source}, pipelines, Findings()),
        cursor,
        NOW + timedelta(minutes=1),
    )
    assert keys(events) == {
        "sales_db/public/sales",
        "kafka/sales-events",
        "kafka/source-positions",
        "kafka/top-sales-by-city.partials",
        "kafka/top-sales-by-city.state",
        "kafka/top-salesman-by-country.partials",
        "kafka/top-salesman-by-country.state",
        "kafka/top-sales-by-city",
        "results_db/public/top_sales_by_city",
        "results_db/public/top_salesman_by_country",
    }


def test_before_anything_was_captured_topics_are_shown_and_the_unknown_is_left_out() -> None:
    nothing = PlatformStatus(
        {topic.name: 0 for topic in PUBLIC}, {}, {CITY: replace(pipeline(), watermark=None)}, Findings()
    )
    nothing.topics.update({f"{CITY}.g1.{role}": 0 for role in ("partials", "state", "progress")})
    events, _ = changed(nothing, None, NOW)
    assert "sales_db/public/sales" not in keys(events)
    assert "watermark" not in one(events, "results_db/public/top_sales_by_city").metadata


def test_ids_of_several_sources_fail_the_check_and_are_told_when_their_number_changes() -> None:
    def checks(overlap: Findings, cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str]:
        events, cursor = changed(replace(standing(), overlap=overlap), cursor, NOW)
        return evaluations(events, OVERLAP_CHECK), cursor

    (told,), cursor = checks(Findings(), None)
    assert told.passed
    assert checks(Findings(), cursor) == ([], cursor)
    (told,), cursor = checks(Findings(2, ("a", "b")), cursor)
    assert not told.passed
    assert told.metadata["first"].value == "a, b"
    assert checks(Findings(2, ("a", "b")), cursor) == ([], cursor)
    (told,), _ = checks(Findings(), cursor)
    assert told.passed


def test_groups_below_zero_fail_the_check_of_their_answer_and_are_told_when_their_number_changes() -> None:
    def checks(count: int, cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str]:
        negative = {CITY: Findings(count, ("2026-11-22 DE Berlin EUR",) * count)}
        events, cursor = changed(replace(standing(), negative=negative), cursor, NOW)
        found = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
        return [event for event in found if event.check_name == NEGATIVE_CHECK], cursor

    (told,), cursor = checks(0, None)
    assert told.passed
    assert told.asset_key == dg.AssetKey(["results_db", "public", "top_sales_by_city"])
    assert checks(0, cursor) == ([], cursor)
    (told,), cursor = checks(1, cursor)
    assert not told.passed
    assert told.metadata["first"].value == "2026-11-22 DE Berlin EUR"
    assert checks(1, cursor) == ([], cursor)


def test_row_21_events_that_are_dropped_fail_the_check_when_their_number_grows() -> None:
    def checks(
        counts: dict[str, dict[str, int]], cursor: str | None
    ) -> tuple[dict[str, dg.AssetCheckEvaluation], str]:
        found = standing()
        dropping = {
            name: replace(one, duplicates=counts.get(name, {})) for name, one in found.pipelines.items()
        }
        events, cursor = changed(replace(found, pipelines=dropping), cursor, NOW)
        return {"/".join(one.asset_key.path): one for one in evaluations(events, DUPLICATES_CHECK)}, cursor

    sales, payments = "kafka/sales-events", "kafka/payment-confirmations"
    told, cursor = checks({}, None)
    assert {name: check.passed for name, check in told.items()} == {sales: True, payments: True}
    assert checks({}, cursor) == ({}, cursor)
    dropped = {ENRICHED: {"payment-confirmations": 14, "sales-events": 0}}
    told, cursor = checks(dropped, cursor)
    assert list(told) == [payments]
    assert not told[payments].passed
    description = told[payments].description
    assert description is not None
    assert description.endswith("14 of enriched-sales")
    assert told[payments].metadata["dropped"].value == {ENRICHED: 14}
    assert checks(dropped, cursor) == ({}, cursor), "told once"
    # A generation that dropped fewer was promoted.
    told, _ = checks({}, cursor)
    assert told[payments].passed
    # What was dropped before the first look is told as well.
    told, _ = checks(dropped, None)
    assert not told[payments].passed


def test_row_29_a_sale_in_the_future_fails_its_check_until_it_is_taken_back() -> None:
    events, cursor = changed(standing(), None, NOW)
    assert [check.passed for check in evaluations(events, FUTURE_CHECK)] == [True]
    typo = replace(standing(), future=Findings(2, ("s1 (2126-01-01 12:00 UTC)", "s2 (2126-01-02 12:00 UTC)")))
    events, cursor = changed(typo, cursor, NOW)
    (check,) = evaluations(events, FUTURE_CHECK)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "s1 (2126-01-01 12:00 UTC)" in str(check.metadata["first"].value)
    events, cursor = changed(typo, cursor, NOW)
    assert evaluations(events, FUTURE_CHECK) == [], "once"
    events, _ = changed(standing(), cursor, NOW)
    assert [check.passed for check in evaluations(events, FUTURE_CHECK)] == [True]


def test_row_30_rules_of_a_zone_that_changed_fail_a_check_of_the_answer() -> None:
    events, cursor = changed(standing(), None, NOW)
    assert [check.passed for check in evaluations(events, RULES_CHECK)] == [True] * 3
    stands = standing()
    stands.pipelines[CITY] = replace(stands.pipelines[CITY], is_outdated=True)
    events, cursor = changed(stands, cursor, NOW)
    (check,) = evaluations(events, RULES_CHECK)
    assert not check.passed
    assert check.asset_key.to_user_string() == "results_db/public/top_sales_by_city"
    assert f"electrored replay {CITY} --time-zone" in (check.description or "")
    assert evaluations(changed(stands, cursor, NOW)[0], RULES_CHECK) == []
