"""What the code location defines, as a snapshot: a change of names is a change for everybody who uses them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import dagster as dg
import yaml

from electrored_dagster.definitions import definitions

PROJECT = Path(__file__).resolve().parents[3]

# Asset: (group, what it comes from).
GRAPH = {
    "sales_db/public/sales": ("sources", []),
    "kafka/sales-events": ("sources", ["sales_db/public/sales"]),
    "kafka/source-positions": ("sources", ["sales_db/public/sales"]),
    "kafka/late-events": ("streams", ["kafka/sales-events"]),
    "kafka/dead-letters": ("streams", ["kafka/sales-events"]),
    "kafka/top-sales-by-city.partials": ("streams", ["kafka/sales-events"]),
    "kafka/top-sales-by-city.state": ("streams", ["kafka/top-sales-by-city.partials"]),
    "kafka/top-sales-by-city": ("streams", ["kafka/top-sales-by-city.state"]),
    "kafka/top-salesman-by-country.partials": ("streams", ["kafka/sales-events"]),
    "kafka/top-salesman-by-country.state": ("streams", ["kafka/top-salesman-by-country.partials"]),
    "kafka/top-salesman-by-country": ("streams", ["kafka/top-salesman-by-country.state"]),
    "kafka/payment-confirmations": ("sources", []),
    "kafka/enriched-sales.partials": ("streams", ["kafka/payment-confirmations", "kafka/sales-events"]),
    "kafka/enriched-sales.state": ("streams", ["kafka/enriched-sales.partials"]),
    "kafka/enriched-sales": ("streams", ["kafka/enriched-sales.state"]),
    "results_db/public/enriched_sales": ("results", ["kafka/enriched-sales.state"]),
    "results_db/public/top_sales_by_city": ("results", ["kafka/top-sales-by-city.state"]),
    "results_db/public/top_salesman_by_country": ("results", ["kafka/top-salesman-by-country.state"]),
}


@cache
def repository() -> dg.RepositoryDefinition:
    return definitions().get_repository_def()


def test_the_graph_reaches_from_the_sales_table_to_the_views() -> None:
    specs = {
        spec.key.to_user_string(): (
            spec.group_name,
            sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        )
        for spec in definitions().resolve_all_asset_specs()
    }
    assert specs == GRAPH


def test_every_asset_is_external_and_described() -> None:
    graph = repository().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.is_external, key
        assert node.description, key
        assert node.kinds, key


def test_answers_have_a_freshness_policy_and_nothing_else_has() -> None:
    fresh = {s.key.to_user_string() for s in definitions().resolve_all_asset_specs() if s.freshness_policy}
    assert fresh == {key for key in GRAPH if key.startswith("results_db/")}


def test_jobs_schedules_and_sensors() -> None:
    jobs = set(repository().job_names) - {"__ASSET_JOB"}
    assert jobs == {"prune_history"}
    assert {s.name: s.cron_schedule for s in repository().schedule_defs} == {"prune_nightly": "40 2 * * *"}
    assert {s.name: s.minimum_interval_seconds for s in repository().sensor_defs} == {"observe_platform": 60}


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
