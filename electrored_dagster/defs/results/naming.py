"""Every hour: whether two cities are probably one, which no rule can decide. A warning, and no more."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from contracts.topics import TOP_SALES_BY_CITY
from electrored_dagster.asset_specs import key
from electrored_dagster.defs.instance import Platform
from observer.lookalikes import DAYS, look_alikes

NAME = "cities_that_look_alike"


@dg.asset_check(
    name=NAME,
    asset=key(datasets.view(TOP_SALES_BY_CITY.name)),
    description="Names that differ by case, accents, width, script, blanks or punctuation alone are counted as "
    "different cities, and are probably one: mend them where they are written.",
)
def cities_that_look_alike(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    alike = platform.ask(look_alikes)
    return dg.AssetCheckResult(
        passed=alike.count == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{alike.count} sets of names look alike, among {alike.names} cities of the last "
        f"{DAYS} days",
        metadata={
            "look_alikes": alike.count,
            "cities": alike.names,
            "first": "\n".join(alike.first),
        },
    )


check_names = dg.define_asset_job(
    "check_names",
    selection=dg.AssetSelection.checks(cities_that_look_alike),
    executor_def=dg.in_process_executor,
    description="Looks for cities whose names look alike.",
)
check_names_hourly = dg.ScheduleDefinition(
    name="check_names_hourly",
    job=check_names,
    cron_schedule="25 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
