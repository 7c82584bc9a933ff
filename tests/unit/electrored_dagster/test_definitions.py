"""What the code location defines, as a snapshot: a change of names is a change for everybody who uses them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import dagster as dg
import pytest
import yaml

from electrored_dagster.definitions import definitions
from electrored_dagster.pruning import FREQUENT
from observer.probes import NIGHTLY

PROJECT = Path(__file__).resolve().parents[3]

# Asset: (group, what it comes from).
GRAPH = {
    "sales_db/public/sales": ("sources", []),
    "files/inbox": ("sources", []),
    "soap/payments": ("sources", []),
    "results_db/public/csv_sales": ("sources", ["files/inbox"]),
    "kafka/sales-events": (
        "sources",
        ["files/inbox", "results_db/public/csv_sales", "sales_db/public/sales"],
    ),
    "kafka/payment-confirmations": ("sources", ["soap/payments"]),
    "kafka/source-positions": (
        "sources",
        ["files/inbox", "results_db/public/csv_sales", "sales_db/public/sales", "soap/payments"],
    ),
    "kafka/late-events": ("streams", ["kafka/sales-events"]),
    "kafka/dead-letters": (
        "streams",
        [
            "files/inbox",
            "kafka/payment-confirmations",
            "kafka/sales-events",
            "results_db/public/csv_sales",
            "sales_db/public/sales",
            "soap/payments",
        ],
    ),
    "kafka/top-sales-by-city.partials": ("streams", ["kafka/sales-events"]),
    "kafka/top-sales-by-city.state": ("streams", ["kafka/top-sales-by-city.partials"]),
    "kafka/top-sales-by-city": ("streams", ["kafka/top-sales-by-city.state"]),
    "kafka/top-salesman-by-country.partials": ("streams", ["kafka/sales-events"]),
    "kafka/top-salesman-by-country.state": ("streams", ["kafka/top-salesman-by-country.partials"]),
    "kafka/top-salesman-by-country": ("streams", ["kafka/top-salesman-by-country.state"]),
    "kafka/enriched-sales.partials": ("streams", ["kafka/payment-confirmations", "kafka/sales-events"]),
    "kafka/enriched-sales.state": ("streams", ["kafka/enriched-sales.partials"]),
    "kafka/enriched-sales": ("streams", ["kafka/enriched-sales.state"]),
    "results_db/public/enriched_sales": ("results", ["kafka/enriched-sales.state"]),
    "results_db/public/top_sales_by_city": ("results", ["kafka/top-sales-by-city.state"]),
    "results_db/public/top_salesman_by_country": ("results", ["kafka/top-salesman-by-country.state"]),
    "results_db/public/differences/top_sales_by_city": ("generations", ["kafka/sales-events"]),
    "results_db/public/differences/top_salesman_by_country": ("generations", ["kafka/sales-events"]),
    "results_db/public/differences/enriched_sales": (
        "generations",
        ["kafka/payment-confirmations", "kafka/sales-events"],
    ),
}


# What a run of Dagster's writes; everything else is written by others, and only shown.
MATERIALISED = {
    "results_db/public/csv_sales",
    "kafka/payment-confirmations",
    "results_db/public/differences/top_sales_by_city",
    "results_db/public/differences/top_salesman_by_country",
}
ANSWERS = {key for key, (group, _) in GRAPH.items() if group == "results"}


@cache
def repository() -> dg.RepositoryDefinition:
    return definitions().get_repository_def()


def test_the_graph_reaches_from_the_three_sources_to_the_views() -> None:
    specs = {
        spec.key.to_user_string(): (
            spec.group_name,
            sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        )
        for spec in definitions().resolve_all_asset_specs()
    }
    assert specs == GRAPH


@pytest.mark.parametrize(
    ("source", "answers"),
    [
        ("sales_db/public/sales", ANSWERS),
        ("files/inbox", ANSWERS),
        ("soap/payments", {"results_db/public/enriched_sales"}),
    ],
)
def test_every_answer_is_downstream_of_what_it_is_made_from(source: str, answers: set[str]) -> None:
    graph = repository().asset_graph
    reached, new = set(), {dg.AssetKey(source.split("/"))}
    while new:
        reached |= new
        new = {child for key in new for child in graph.get(key).child_keys} - reached
    assert {key.to_user_string() for key in reached} & ANSWERS == answers


def test_every_asset_is_described_and_some_are_materialised() -> None:
    graph = repository().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.is_external == (key.to_user_string() not in MATERIALISED), key
        assert node.description, key
        assert node.kinds, key


def test_answers_have_a_freshness_policy_and_nothing_else_has() -> None:
    fresh = {s.key.to_user_string() for s in definitions().resolve_all_asset_specs() if s.freshness_policy}
    assert fresh == ANSWERS


def test_jobs_schedules_and_sensors() -> None:
    jobs = set(repository().job_names) - {"__ASSET_JOB"}
    assert jobs == {
        *("prune_history", "csv_take", "csv_retract", "soap_poll"),
        *("replay", "promote", "rollback", "retire", "retire_old_standbys", "check_replays", "check_names"),
    }
    assert set(FREQUENT) < jobs
    assert {s.name: s.cron_schedule for s in repository().schedule_defs} == {
        "prune_nightly": "40 2 * * *",
        "poll_payments": "*/5 * * * *",
        "retire_old_standbys_nightly": "50 2 * * *",
        "check_replays_nightly": "10 3 * * *",
        "check_names_hourly": "25 * * * *",
    }
    frequent = ("poll_payments", "check_names_hourly")
    nightly = {s.job_name for s in repository().schedule_defs if s.name not in frequent}
    assert set(NIGHTLY) == nightly, "somebody would miss each"
    assert {s.name: s.minimum_interval_seconds for s in repository().sensor_defs} == {
        "observe_platform": 60,
        "csv_inbox": 1,
        **{f"tell_lineage_of_{end}": 30 for end in ("success", "failure", "canceled")},
    }


def test_checks() -> None:
    checks = {(c.asset_key.to_user_string(), c.name) for c in repository().asset_graph.asset_check_keys}
    assert checks == {
        ("results_db/public/csv_sales", "reject_rate"),
        ("results_db/public/csv_sales", "oldest_waiting_file"),
        ("results_db/public/csv_sales", "files_agree"),
        ("results_db/public/csv_sales", "names_recognised"),
        ("kafka/sales-events", "sale_ids_in_both_sources"),
        ("results_db/public/top_sales_by_city", "cities_that_look_alike"),
        ("kafka/sales-events", "no_event_is_dropped"),
        ("kafka/payment-confirmations", "no_event_is_dropped"),
        ("kafka/payment-confirmations", "records_are_good"),
        ("kafka/sales-events", "sales_in_the_future"),
        *((answer, "zone_rules_are_current") for answer in ANSWERS),
        *((answer, "replay_is_identical") for answer in ANSWERS),
        *((answer, "no_negative_groups") for answer in ANSWERS),
    }


@pytest.mark.parametrize("name", ["top_sales_by_city", "top_salesman_by_country"])
def test_a_backfill_of_any_range_is_one_run(name: str) -> None:
    node = repository().asset_graph.get(dg.AssetKey(["results_db", "public", "differences", name]))
    assert node.partitions_def is not None
    assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_only_steps_of_replays_are_processes_of_their_own() -> None:
    executors = {job.name: job.executor_def.name for job in repository().get_all_jobs()}
    assert {name for name, executor in executors.items() if executor == "multiprocess"} == {
        "replay",
        "__ASSET_JOB",
    }


def test_what_is_periodic_runs_without_being_switched_on() -> None:
    assert all(s.default_status == dg.DefaultSensorStatus.RUNNING for s in repository().sensor_defs)
    assert all(s.default_status == dg.DefaultScheduleStatus.RUNNING for s in repository().schedule_defs)


def test_code_location_has_one_name() -> None:
    workspace = yaml.safe_load((PROJECT / "workspace.yaml").read_text())
    (server,) = workspace["load_from"]
    assert server["grpc_server"]["location_name"] == "electrored"
    assert 'code_location_name = "electrored"' in (PROJECT / "pyproject.toml").read_text()


def test_more_runs_than_pools_may_run() -> None:
    pools = {
        node.pool
        for job in repository().get_all_jobs()
        for node in job.all_node_defs
        if hasattr(node, "pool")
    }
    instance = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] >= len(pools - {None})
