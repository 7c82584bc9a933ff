"""Row 33: partitions in Dagster are the windows of the active generation, in its zone, by its rules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from contracts.calendar import Calendar
from contracts.topics import TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY
from electrored_dagster.defs.generations.replaying import WINDOWS
from electrored_dagster.defs.upkeep import observing
from observer.platform_status import Findings, PlatformStatus

CITY, SALESMAN = TOP_SALES_BY_CITY.name, TOP_SALESMAN_BY_COUNTRY.name
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
FIRST = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Platform:
    """The windows of generations in a zone, at noon in Greenwich."""

    def __init__(self, zone: str) -> None:
        self.zone = zone

    def standing(self) -> PlatformStatus:
        return PlatformStatus({}, {}, {}, Findings())

    def windows(self, pipeline: str) -> list[str]:
        return (
            []
            if not self.zone
            else Calendar("1-day" if pipeline == CITY else "30-days", self.zone).days(FIRST, NOW)
        )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def test_row_33_partitions_follow_a_promotion_into_another_zone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "changed", lambda *_: ([], ""))
    monkeypatch.setattr(observing, "emit_checks", lambda *_: None)

    def shown(zone: str) -> dict[str, list[str]]:
        context: Any = dg.build_sensor_context(instance, resources={"platform": Platform(zone)})
        result = observing.observe_platform(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
            else:
                for key in request.partition_keys:
                    instance.delete_dynamic_partition(request.partitions_def_name, key)
        return {
            pipeline: sorted(windows.get_partition_keys(dynamic_partitions_store=instance))
            for pipeline, windows in WINDOWS.items()
        }

    days = ["2026-11-28", "2026-11-29", "2026-11-30"]
    assert shown("UTC") == {CITY: days, SALESMAN: ["2026-11-03"]}
    assert shown("Pacific/Auckland")[CITY] == ["2026-11-29", "2026-11-30", "2026-12-01"], (
        "there it is tomorrow"
    )
    assert shown("Pacific/Honolulu")[CITY] == days, "there it is not"
    assert shown("")[CITY] == days, "a database that has nothing yet takes nothing away"


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ((2011, 12, 29), (2012, 1, 1), ["2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01"]),
        ((2011, 12, 30), (2011, 12, 30), ["2011-12-29"]),
    ],
)
def test_row_31_a_day_that_was_left_out_is_no_partition(
    first: tuple[int, int, int], last: tuple[int, int, int], days: list[str]
) -> None:
    assert (
        Calendar("1-day", "Pacific/Apia").days(datetime(*first, tzinfo=UTC), datetime(*last, tzinfo=UTC))
        == days
    )
