"""The first generation: made once, whatever happened the last time, and loaded as it was made."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from contracts.settings import ResultsDbSettings
from contracts.tables import active_generations
from contracts.tables import generations as table
from contracts.topics import SALES_EVENTS
from contracts.zones import ZoneRules
from kafka_client import clients as connect
from stack import databases
from stack.embedded import Embedded
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.generations import catalog
from streaming.generations.catalog import Generation
from streaming.pipelines import CURRENT, PIPELINES
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[4]
PARAMETERS = Parameters("Europe/Berlin", timedelta(minutes=90), "calendar-month")


@pytest.fixture
def pipeline() -> Pipeline:
    suffix = uuid4().hex[:8]
    source = replace(SALES_EVENTS, name=f"sales-events-{suffix}")
    original = PIPELINES["top-salesman-by-country", CURRENT["top-salesman-by-country"]]
    return replace(original.over(source), name=f"{original.name}-{suffix}")


def create(stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline) -> Generation:
    results = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    return catalog.create(stack.kafka, results, pipeline, PARAMETERS, reason="test", created_by="test")


def test_is_loaded_as_it_was_made(stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline) -> None:
    made = create(stack, results_db, pipeline)
    results = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    assert catalog.load_live(results, pipeline.name) == [made]
    assert made.parameters == PARAMETERS
    assert made.start_offsets == dict.fromkeys(range(SALES_EVENTS.partitions), 0)
    found = connect.describe_topics(stack.kafka, made.topics)
    assert {name: (topic.id, topic.partitions) for name, topic in made.topics.items()} == found
    with results.connect() as connection:
        pointers = connection.execute(
            select(active_generations).where(active_generations.c.pipeline == pipeline.name)
        ).all()
    assert pointers == [(pipeline.name, 1, 1)]


def test_a_crash_before_the_row_is_completed_by_the_next_call(
    stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(catalog, "_insert", _crash)
        with pytest.raises(InterruptedError):
            create(stack, results_db, pipeline)
    first = create(stack, results_db, pipeline)
    assert create(stack, results_db, pipeline) == first


def test_two_at_once_agree(stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline) -> None:
    with ThreadPoolExecutor(2) as threads:
        one, other = (threads.submit(create, stack, results_db, pipeline) for _ in range(2))
        assert one.result() == other.result()


def test_row_30_a_generation_from_before_takes_over_the_rules_of_whoever_comes_first(
    stack: Embedded,
    results_db: ResultsDbSettings,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Machine B, with other rules, keeps to those of A, and asks for a replay."""
    made = create(stack, results_db, pipeline)
    results = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    of_a = made.parameters.rules
    assert of_a == ZoneRules.of_machine("Europe/Berlin"), "a new one has them from the start"
    with results.begin() as connection:
        connection.execute(table.update().values(zone_rules=None))
    before = catalog.load(results, pipeline.name, 1)
    assert before.parameters.rules is None

    with capture_logs() as logged:
        assert catalog.with_rules(results, before).parameters.rules == of_a
    assert "replay" not in str(logged)
    of_b = ZoneRules("Europe/Berlin", (1,), (3600,))
    monkeypatch.setattr("contracts.zones._of_machine", lambda _: of_b)
    day = date(2026, 7, 1)
    assert before.parameters.windows.window_of(day).start.hour == 23, "what B would have counted by"
    with capture_logs() as logged:
        kept = catalog.with_rules(results, before).parameters
    assert (kept.rules, kept.windows.window_of(day).start.hour) == (of_a, 22)
    assert f"electrored replay {pipeline.name} --time-zone Europe/Berlin --reason" in str(logged)


def test_setup_and_init_may_run_any_number_of_times(stack: Embedded) -> None:
    """On the catalogue's own names, which no other test writes to."""
    name = f"results_{uuid4().hex[:12]}"
    databases.create_database(stack.postgres(), name, owner=databases.WRITER)
    databases.provision_results(stack.postgres(name))
    url = stack.postgres(name, databases.WRITER).render_as_string(hide_password=False)
    for command in ("contracts setup", "streaming init", "contracts setup", "streaming init"):
        done = _run(stack, url, *command.split())
        assert done.returncode == 0, done.stderr
    results = create_engine(url, poolclass=NullPool)
    for pipeline in CURRENT:
        assert [found.number for found in catalog.load_live(results, pipeline)] == [1]
    databases.drop_database(stack.postgres(), name)


def test_a_worker_without_its_pipeline_says_so_in_one_line(
    stack: Embedded, results_db: ResultsDbSettings
) -> None:
    done = _run(stack, results_db.results_db_url.get_secret_value(), "streaming", "work", "no-such-pipeline")
    assert done.returncode == 1
    assert "no-such-pipeline has no generation" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipeline_whose_first_generation_is_history_gets_no_other_first_one(
    stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline
) -> None:
    made = create(stack, results_db, pipeline)
    results = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    with results.begin() as connection:
        connection.execute(table.update().values(state="retired"))
    admin, state = connect.admin(stack.kafka), made.names.state.name
    admin.delete_topics([state])[state].result()
    assert create(stack, results_db, pipeline) == replace(made, state="retired")
    # Its topics are not made anew either; Kafka forgets a moment after it has answered.
    wait_until(lambda: state not in admin.list_topics(timeout=10).topics, what="deletion")
    # Of several, the active one, whatever came after it.
    with results.begin() as connection:
        row = connection.execute(select(table)).mappings().one()
        for number, state in ((2, "active"), (3, "building")):
            connection.execute(table.insert().values({**row, "number": number, "state": state}))
    assert create(stack, results_db, pipeline) == replace(made, number=2, state="active")


def test_a_worker_without_an_active_generation_says_so_in_one_line(
    stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline
) -> None:
    create(stack, results_db, pipeline)
    url = results_db.results_db_url.get_secret_value()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(table.update().values(state="standby"))
    done = _run(stack, url, "streaming", "work", pipeline.name)
    assert done.returncode == 1
    assert "no active generation, only g1 standby" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_lacks_the_active_version_says_so_in_one_line(
    stack: Embedded, results_db: ResultsDbSettings, pipeline: Pipeline
) -> None:
    create(stack, results_db, pipeline)
    url = results_db.results_db_url.get_secret_value()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(table.update().values(version=99))
    done = _run(stack, url, "streaming", "work", pipeline.name)
    assert done.returncode == 1
    assert f"needs version 99 of {pipeline.name}, which this code does not have" in done.stderr
    assert "Traceback" not in done.stderr


def _run(stack: Embedded, results_url: str, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "ELECTRORED_KAFKA_BOOTSTRAP": stack.bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": stack.registry_url,
        "ELECTRORED_RESULTS_DB_URL": results_url,
    }
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def _crash(*_: object) -> None:
    raise InterruptedError
