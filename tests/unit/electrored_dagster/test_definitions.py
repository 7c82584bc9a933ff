"""What the code location defines, as a snapshot: a change of names is a change for all users of them."""

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

PIPELINES = {"top-sales-by-city", "top-salesman-by-country", "enriched-sales"}
SOURCES = ["files/inbox", "results_db/public/csv_sales", "sales_db/public/sales"]


def inputs(pipeline: str) -> list[str]:
    return [*(["kafka/payment-confirmations"] if pipeline == "enriched-sales" else []), "kafka/sales-events"]


def view(pipeline: str, folder: str = "") -> str:
    return f"results_db/public/{folder}{pipeline.replace('-', '_')}"


# Asset: (group, what it comes from).
GRAPH: dict[str, tuple[str, list[str]]] = {
    "sales_db/public/sales": ("sources", []),
    "files/inbox": ("sources", []),
    "soap/payments": ("sources", []),
    "results_db/public/csv_sales": ("sources", ["files/inbox"]),
    "kafka/sales-events": ("sources", SOURCES),
    "kafka/payment-confirmations": ("sources", ["soap/payments"]),
    "kafka/source-positions": ("sources", [*SOURCES, "soap/payments"]),
    "kafka/late-events": ("streams", ["kafka/sales-events"]),
    "kafka/dead-letters": ("streams", sorted([*inputs("enriched-sales"), *SOURCES, "soap/payments"])),
}
for name in PIPELINES:
    GRAPH |= {
        f"kafka/{name}.partials": ("streams", inputs(name)),
        f"kafka/{name}.state": ("streams", [f"kafka/{name}.partials"]),
        f"kafka/{name}": ("streams", [f"kafka/{name}.state"]),
        view(name): ("results", [f"kafka/{name}.state"]),
        view(name, "differences/"): ("generations", inputs(name)),
    }


# What a run of Dagster's writes; everything else is written by others, and only shown.
MATERIALISED = {
    "results_db/public/csv_sales",
    "kafka/payment-confirmations",
    *(view(name, "differences/") for name in PIPELINES if name.startswith("top-")),
}
ANSWERS = {view(name) for name in PIPELINES}


@cache
def repository() -> dg.RepositoryDefinition:
    return definitions().get_repository_def()


def test_the_graph_reaches_from_the_three_sources_to_the_views() -> None:
    graph = {
        spec.key.to_user_string(): (
            spec.group_name,
            sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        )
        for spec in definitions().resolve_all_asset_specs()
    }
    assert graph == GRAPH


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
    assert set(NIGHTLY) == nightly, "each is missed if it does not run"
    assert {s.name: s.minimum_interval_seconds for s in repository().sensor_defs} == {
        "observe_platform": 60,
        "csv_inbox": 1,
        **{f"tell_lineage_of_{end}": 30 for end in ("success", "failure", "canceled")},
    }


def test_checks() -> None:
    checks: dict[str, set[str]] = {}
    for key in repository().asset_graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    of_every_answer = {"zone_rules_are_current", "replay_is_identical", "no_negative_groups"}
    assert checks == dict.fromkeys(ANSWERS, of_every_answer) | {
        "results_db/public/top_sales_by_city": of_every_answer | {"cities_that_look_alike"},
        "results_db/public/csv_sales": {
            "reject_rate",
            "oldest_waiting_file",
            "files_agree",
            "names_recognised",
        },
        "kafka/sales-events": {"sale_ids_in_both_sources", "no_event_is_dropped", "sales_in_the_future"},
        "kafka/payment-confirmations": {"no_event_is_dropped", "records_are_good"},
    }


@pytest.mark.parametrize("name", ["top_sales_by_city", "top_salesman_by_country"])
def test_a_backfill_of_any_range_is_one_run(name: str) -> None:
    node = repository().asset_graph.get(dg.AssetKey(["results_db", "public", "differences", name]))
    assert node.partitions_def is not None
    assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_only_steps_of_replays_are_processes_of_their_own() -> None:
    executors = {job.name: job.executor_def.name for job in repository().get_all_jobs()}
    multiprocess = {name for name, executor in executors.items() if executor == "multiprocess"}
    assert multiprocess == {"replay", "__ASSET_JOB"}


def test_what_is_periodic_runs_without_being_switched_on() -> None:
    assert all(s.default_status == dg.DefaultSensorStatus.RUNNING for s in repository().sensor_defs)
    assert all(s.default_status == dg.DefaultScheduleStatus.RUNNING for s in repository().schedule_defs)


def test_code_location_has_one_name() -> None:
    workspace = yaml.safe_load((PROJECT / "workspace.yaml").read_text())
    (server,) = workspace["load_from"]
    assert server["grpc_server"]["location_name"] == "electrored"
    assert 'code_location_name = "electrored"' in (PROJECT / "pyproject.toml").read_text()


def test_more_runs_than_pools_may_run() -> None:
    nodes = [node for job in repository().get_all_jobs() for node in job.all_node_defs]
    pools = {node.pool for node in nodes if hasattr(node, "pool")}
    instance = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] >= len(pools - {None})
