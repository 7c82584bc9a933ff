"""Exactly once, rule 3: rows and consumed offsets in one database transaction, compared and set."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy import Engine, create_engine, text
from structlog.testing import capture_logs

from contracts import datasets
from contracts.settings import KafkaSettings, ResultsDbSettings
from kafka_client.errors import Fatal
from kafka_client.registry import Registry
from lineage.emitter import NULL_EMITTER, Emitter
from stack.embedded import Embedded
from streaming.results_db import retried
from streaming.sink import rows as rows_module
from streaming.sink.postgres import StateSink, run
from tests.support.sink import DAY, Make, RecordingEmitter
from tests.support.threads import Background, collecting, running
from tests.support.waiting import wait_until

TIMEOUT_SECONDS = 90.0


def following(
    kafka: KafkaSettings, results: ResultsDbSettings, lineage: Emitter = NULL_EMITTER
) -> AbstractContextManager[list[BaseException]]:
    """The sink process in a thread; what it died of is in the list."""
    return collecting(lambda stop: run(kafka, results, stop, lineage))


def test_totals_become_rows_and_the_last_value_of_a_group_wins(
    stack: Embedded, results_db: ResultsDbSettings, make: Make
) -> None:
    made = make()
    made.write([made.total("Berlin", "1.0001"), made.total("Köln|\\", "2")])
    made.write([made.total("Berlin", "99999999999999.9999", 7), made.total("Bonn", "-3.5", 0)])
    with following(stack.kafka, results_db) as died:
        expected = {
            "Berlin": (Decimal("99999999999999.9999"), 7),
            "Köln|\\": (Decimal("2.0000"), 1),
            "Bonn": (Decimal("-3.5000"), 0),
        }
        wait_until(lambda: made.rows() == expected, what="first rows")
        made.write([made.total("Berlin", "5", 8)])
        wait_until(lambda: made.rows()["Berlin"] == (Decimal("5.0000"), 8), what="a change")
    assert died == []


def test_what_a_run_says_is_what_it_read_and_wrote_and_from_where_it_would_go_on(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, engine: Engine
) -> None:
    made, heard = make(), RecordingEmitter()
    made.write([made.total("Berlin", "1"), made.total("Bonn", "2")], watermark=DAY)
    name = f"{made.followed.pipeline.name}.g{made.followed.number}.sink"
    with following(stack.kafka, results_db, heard) as died:
        wait_until(lambda: len(made.rows()) == 2, what="rows")
        wait_until(lambda: heard.of(name).watermark == DAY, what="watermarks")
    assert died == []
    said = heard.of(name)
    assert said.counts == {"sink": {"records": 2 + made.followed.partitions}}
    assert said.rows == {datasets.table(made.followed.pipeline.table): 2}
    with engine.connect() as connection:
        found = connection.execute(text("SELECT partition, next_offset FROM sink_positions"))
        assert said.checkpoints == {"sink": {row.partition: row.next_offset for row in found}}


def test_rows_are_counted_and_how_long_their_oldest_event_took(
    stack: Embedded, results_db: ResultsDbSettings, make: Make
) -> None:
    made = make()
    flow = {"flow": f"{made.followed.pipeline.name}.g1.sink"}

    def told(what: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(what, flow | labels)

    with following(stack.kafka, results_db) as died:
        wait_until(lambda: told("electrored_events_total") == 0, what="the beginning")
        # Watermarks are no rows, and carry no age.
        made.write(watermark=DAY)
        # Of each partition one, which may come one after the other.
        wait_until(lambda: made.apply_number() >= 1, what="the watermark")
        began = datetime.now(UTC)
        made.write(
            [made.total("Berlin", "1"), made.total("Bonn", "2")], DAY, oldest=began - timedelta(seconds=100)
        )
        wait_until(lambda: told("electrored_end_to_end_latency_seconds_count") == 1, what="an event's age")
        took = (datetime.now(UTC) - began).total_seconds()
        wait_until(lambda: len(made.rows()) == 2, what="both rows")
    assert died == []
    assert told("electrored_events_total") == 2
    assert told("electrored_end_to_end_latency_seconds_count") == 1
    assert told("electrored_end_to_end_latency_seconds_bucket", le="60.0") == 0
    assert told("electrored_end_to_end_latency_seconds_bucket", le="300.0") == 1
    told_sum = told("electrored_end_to_end_latency_seconds_sum")
    assert told_sum is not None
    assert 100 <= told_sum <= 100 + took


def test_a_generation_is_followed_without_a_restart_and_left_when_retired(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, engine: Engine
) -> None:
    with following(stack.kafka, results_db) as died:
        first, second = make(1), make(2, state="candidate")
        first.write([first.total("Berlin", "1")])
        second.write([second.total("Berlin", "2")])
        wait_until(lambda: first.rows() != {} and second.rows() != {}, what="both generations")
        with engine.begin() as connection:
            connection.execute(text("UPDATE generations SET state = 'retired' WHERE number = 2"))
        second.write([second.total("Berlin", "3")])
        first.write([first.total("Berlin", "4")])
        wait_until(lambda: first.rows()["Berlin"][0] == 4, what="the other one goes on")
        assert second.rows()["Berlin"][0] == 2
    assert died == []


def test_watermarks_and_offsets_go_with_the_rows(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, engine: Engine
) -> None:
    made = make()
    made.write([made.total("Berlin", "1")], watermark=DAY)
    with following(stack.kafka, results_db) as died:
        wait_until(lambda: made.rows() != {}, what="rows")

        def stored() -> list[tuple[int, object]]:
            with engine.connect() as connection:
                found = connection.execute(
                    text("SELECT next_offset, watermark FROM sink_positions ORDER BY 1")
                )
                return [(row.next_offset, row.watermark) for row in found]

        wait_until(lambda: all(watermark == DAY for _, watermark in stored()), what="watermarks")
        made.write(watermark=DAY + timedelta(seconds=1))
        wait_until(lambda: all(w == DAY + timedelta(seconds=1) for _, w in stored()), what="newer watermarks")
        assert all(offset >= 3 for offset, _ in stored())
    assert died == []


def test_uncommitted_and_aborted_totals_are_never_rows(
    stack: Embedded, results_db: ResultsDbSettings, make: Make
) -> None:
    made = make()
    made.write([made.total("Berlin", "1")])
    with following(stack.kafka, results_db) as died:
        wait_until(lambda: made.rows() != {}, what="rows")
        made.write([made.total("Berlin", "666")], commit=False)
        made.producer.flush()
        made.producer.abort_transaction()
        made.write([made.total("Berlin", "2")])
        seen: list[Decimal] = [Decimal(0)]

        def second() -> bool:
            seen.append(made.rows()["Berlin"][0])
            return seen[-1] == 2

        wait_until(second, what="the committed one")
        assert set(seen) <= {0, 1, 2}
    assert died == []


def test_killed_between_rows_and_offsets_nothing_is_lost_and_nothing_twice(
    stack: Embedded,
    results_db: ResultsDbSettings,
    make: Make,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The transaction dies after the offsets moved and the rows were written, before the commit."""
    made = make()
    sink = StateSink(stack.kafka, engine, Registry(stack.kafka), made.followed)
    made.write([made.total("Berlin", "1"), made.total("Bonn", "1")])
    real = rows_module.Rows.apply

    class Killed(Exception):
        pass

    def dies(self: rows_module.Rows, *args: object) -> None:
        monkeypatch.setattr("sqlalchemy.Connection.commit", lambda _: (_ for _ in ()).throw(Killed()))
        try:
            real(self, *args)  # type: ignore[arg-type]
        finally:
            monkeypatch.undo()

    monkeypatch.setattr(rows_module.Rows, "apply", dies)
    with pytest.raises(Killed):
        sink.run(threading.Event())
    assert made.rows() == {}
    assert made.apply_number() == 0
    with running(StateSink(stack.kafka, engine, Registry(stack.kafka), made.followed).run):
        wait_until(lambda: len(made.rows()) == 2, what="rows after the restart")


def test_a_stale_writer_stops_instead_of_overwriting(stack: Embedded, make: Make, engine: Engine) -> None:
    made = make()
    made.write([made.total("Berlin", "1")])
    stale = StateSink(stack.kafka, engine, Registry(stack.kafka), made.followed)
    stop = threading.Event()
    sink = Background(lambda: stale.run(stop))
    sink.start()
    wait_until(lambda: made.rows() != {}, what="rows of the first sink")
    # Another sink was further, and has written what this one has not seen.
    with engine.begin() as connection:
        connection.execute(text("UPDATE sink_positions SET next_offset = next_offset + 100"))
        connection.execute(text("UPDATE city_totals SET total = 1000"))
    made.write([made.total("Berlin", "2")])
    with pytest.raises(Fatal, match="another sink"):
        sink.join()
    assert made.rows()["Berlin"][0] == 1000


def test_a_recreated_topic_stops_the_sink_at_its_start(
    stack: Embedded, results_db: ResultsDbSettings, make: Make
) -> None:
    made = make()
    made.write([made.total("Berlin", "1")])
    with following(stack.kafka, results_db):
        wait_until(lambda: made.rows() != {}, what="rows")
    made.recreate_topic(stack.kafka)
    with following(stack.kafka, results_db) as died:
        wait_until(lambda: died != [], what="the sink stops")
    assert "was re-created" in str(died[0])


def test_a_topic_recreated_below_a_running_sink_stops_it(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.sink.postgres.CHECK_SECONDS", 1.0)
    made = make()
    made.write([made.total("Berlin", "1"), made.total("Bonn", "1"), made.total("Ulm", "1")])
    with following(stack.kafka, results_db) as died:
        wait_until(lambda: made.rows() != {}, what="rows")
        made.recreate_topic(stack.kafka)
        wait_until(lambda: died != [], what="the sink stops")
    assert made.topic in str(died[0])


def test_a_candidate_whose_topic_is_recreated_is_left_alone_and_the_active_one_goes_on(
    stack: Embedded,
    results_db: ResultsDbSettings,
    make: Make,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streaming.sink.postgres.CHECK_SECONDS", 0.5)
    monkeypatch.setattr("streaming.sink.postgres.AGAIN_SECONDS", (0.2,))
    monkeypatch.setattr("streaming.sink.postgres._log", structlog.get_logger())
    made, candidate = make(1), make(2, state="candidate")
    candidate.write([candidate.total("Berlin", "1")])
    with following(stack.kafka, results_db) as died, capture_logs() as said:
        wait_until(lambda: candidate.rows() != {}, what="rows of the candidate")
        candidate.recreate_topic(stack.kafka)
        wait_until(lambda: failures(said) != [], what="the failure is said")
        made.write([made.total("Berlin", "2")])
        wait_until(lambda: made.rows() != {}, what="rows of the active one")
        assert died == []
        assert {line["generation"] for line in failures(said)} == {str(candidate.followed)}
        reasons = [line["reason"] for line in failures(said)]
        assert len(reasons) == len(set(reasons))
        with engine.begin() as connection:
            connection.execute(text("UPDATE generations SET state = 'standby' WHERE number = 1"))
            connection.execute(text("UPDATE generations SET state = 'active' WHERE number = 2"))
        wait_until(lambda: died != [], what="the sink stops for the active one")
    assert candidate.topic in str(died[0])


def failures(said: list[Any]) -> list[Any]:
    return [line for line in said if line["log_level"] == "error"]


def test_a_candidate_of_a_version_that_this_code_does_not_have_is_left_alone(
    stack: Embedded,
    results_db: ResultsDbSettings,
    make: Make,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streaming.sink.postgres._log", structlog.get_logger())
    made, candidate = make(1), make(2, state="candidate")
    with engine.begin() as connection:
        connection.execute(text("UPDATE generations SET version = 9 WHERE number = 2"))
    with following(stack.kafka, results_db) as died, capture_logs() as said:
        wait_until(lambda: failures(said) != [], what="the failure is said")
        made.write([made.total("Berlin", "2")])
        wait_until(lambda: made.rows() != {}, what="rows of the active one")
        assert died == []
    assert [line["generation"] for line in failures(said)] == [str(candidate.followed)]
    assert "needs version 9, which this code does not have" in failures(said)[0]["reason"]


def test_rows_of_another_topic_are_not_continued(stack: Embedded, make: Make, engine: Engine) -> None:
    made = make()
    rows = rows_module.Rows(engine, made.followed)
    rows.open()
    with engine.begin() as connection:
        connection.execute(text("UPDATE sink_positions SET topic_id = 'another'"))
    with pytest.raises(Fatal, match="another state topic"):
        rows.open()


def test_apply_numbers_grow_by_one_and_an_answer_that_was_lost_is_not_applied_twice(
    make: Make, engine: Engine
) -> None:
    made = make()
    rows = rows_module.Rows(engine, made.followed)
    start = rows.open()
    total = made.total("Berlin", "1")
    assert rows.apply([total], {}, start, {0: 4, 1: 0}) == 1
    assert rows.apply([total], {}, start, {0: 4, 1: 0}) is None
    assert made.apply_number() == 1
    assert rows.apply([total], {0: DAY}, {0: 4, 1: 0}, {0: 6, 1: 2}) == 2
    with pytest.raises(Fatal, match="another sink"):
        rows.apply([total], {}, {0: 5, 1: 2}, {0: 8, 1: 2})
    assert made.apply_number() == 2


def test_the_database_goes_away_and_the_sink_goes_on_where_it_was(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, engine: Engine
) -> None:
    made = make()
    made.write([made.total("Berlin", "1")])
    with following(stack.kafka, results_db) as died:
        wait_until(lambda: made.rows() != {}, what="rows")
        name = engine.url.database
        superuser = create_engine(stack.postgres(), isolation_level="AUTOCOMMIT")
        with superuser.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            terminate = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
            connection.execute(terminate, {"name": name})
            made.write([made.total("Berlin", "2")])
            connection.execute(terminate, {"name": name})
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        superuser.dispose()
        engine.dispose()
        wait_until(lambda: made.rows()["Berlin"][0] == 2, what="rows after the outage")
    assert died == []


@pytest.mark.parametrize(
    "refused",
    [
        "SELECT 1 / 0",
        "INSERT INTO active_generations VALUES (NULL, NULL, NULL)",
        "SELECT * FROM no_such_table",
        "SELECT lpad('x', 2000000000)",
    ],
)
def test_what_the_database_refuses_is_not_asked_again(engine: Engine, refused: str) -> None:
    asked = 0

    def call() -> None:
        nonlocal asked
        asked += 1
        assert asked == 1
        with engine.connect() as connection:
            connection.execute(text(refused))

    with pytest.raises(Fatal, match="the results database refuses"):
        retried(call, threading.Event())


def test_rows_are_there_at_once_and_not_when_a_poll_has_run_out(
    stack: Embedded, results_db: ResultsDbSettings, make: Make
) -> None:
    """Usually within 10 ms; the bound has room for a busy machine and none for an empty wait of 0.5 s."""
    made = make()
    took: list[float] = []
    with following(stack.kafka, results_db):
        made.write([made.total("Berlin", "0")])
        wait_until(lambda: made.rows() != {}, what="rows")
        for n in range(1, 21):
            made.write([made.total("Berlin", str(n))])
            committed_at = time.perf_counter()
            while made.rows()["Berlin"][0] != n:
                time.sleep(0.001)
            took.append(time.perf_counter() - committed_at)
    assert sorted(took)[10] < 0.25
