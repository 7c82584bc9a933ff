"""A results database restored alone to an earlier time, while Kafka went on: nothing goes on from what it forgot."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import make_url, select

from contracts.schemas import load
from contracts.tables import city_totals
from kafka_client import clients as connect
from kafka_client.errors import Fatal
from kafka_client.registry import Registry
from stack import databases
from stack.embedded import Embedded
from streaming import pipelines
from streaming.generations import catalog, supervisor
from streaming.generations.catalog import Generation
from streaming.replay import build, retirement
from streaming.sink import postgres, publisher
from tests.support.live_harness import LiveHarness
from tests.support.sink import publishing
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

KATHMANDU, UTC_ZONE = "Asia/Kathmandu", "UTC"
Shown = dict[tuple[object, ...], tuple[Decimal, int]]


@dataclass
class Restorable:
    """The live pipeline with a public topic of its own, and copies of its results database."""

    live: LiveHarness
    stack: Embedded
    template: str
    copies: list[str]

    @property
    def name(self) -> str:
        return make_url(self.live.harness.results_url).database or ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Worker, sink and publisher."""
        with self.live.running(), publishing(self.stack.kafka, self.live.results) as died:
            yield
        assert died == []

    def backup(self) -> str:
        self.copies.append(f"backup_{uuid4().hex[:12]}")
        databases.create_database(
            self.stack.postgres(), self.copies[-1], owner=databases.WRITER, template=self.name
        )
        return self.copies[-1]

    def restore(self, backup: str) -> None:
        databases.drop_database(self.stack.postgres(), self.name)
        databases.create_database(self.stack.postgres(), self.name, owner=databases.WRITER, template=backup)

    def begin_anew(self) -> Generation:
        """An empty results database, and what `init` makes in it."""
        self.restore(self.template)
        harness = self.live.harness
        return catalog.create(
            harness.kafka,
            harness.results,
            harness.pipeline,
            harness.generation.parameters,
            reason="test",
            created_by="test",
        )

    def replayed(self, time_zone: str) -> int:
        """A candidate with days of that zone, promoted."""
        made = self.live.build(self.live.request(time_zone=time_zone))
        wait_until(lambda: self.rows(made.number) == self.expected(time_zone), what="rows of the candidate")
        self.live.promote(made.number, self.live.compare(made.number).fingerprint)
        return made.number

    def rows(self, number: int) -> Shown:
        """Of the results database; its days by their beginnings."""
        of = city_totals.c
        with self.live.harness.results.connect() as connection:
            found = connection.execute(
                select(of.window_start, of.country, of.city, of.currency, of.total, of.sales_count).where(
                    of.generation == number
                )
            ).all()
        return {tuple(row[:4]): (row.total, row.sales_count) for row in found}

    def shown(self) -> Shown:
        """Of the public topic, what compaction leaves."""
        output = self.live.harness.pipeline.output
        codec = Registry(self.stack.kafka).codec(output.subject, load(output.schema))
        # The last value of each key; None where it was deleted.
        newest = {message.key(): message.value() for message in self.live.harness.messages(output.name)}
        values = [codec.decode(value) for value in newest.values() if value is not None]
        return {
            (each["window_start"], each["country"], each["city"], each["currency"]): (
                each["total"],
                each["sales_count"],
            )
            for each in values
        }

    def expected(self, time_zone: str) -> Shown:
        """A plain GROUP BY over all events, with days of that zone."""
        zone = ZoneInfo(time_zone)
        totals: Shown = defaultdict(lambda: (Decimal(0), 0))
        for event in self.live.harness.events:
            day = datetime.combine(event["sold_at"].astimezone(zone).date(), time(), zone).astimezone(UTC)
            key = (day, event["country"], event["city"], event["currency"])
            total, count = totals[key]
            totals[key] = (total + event["amount"], count + (1 if event["operation"] == "SALE" else -1))
        return dict(totals)

    def published(self, time_zone: str) -> None:
        """Wait until outsiders see exactly that; a group whose count is 0 is hidden."""

        def is_it() -> bool:
            expected = {key: value for key, value in self.expected(time_zone).items() if value[1]}
            return self.shown() == expected

        wait_until(is_it, what=f"public topic with days of {time_zone}")


@pytest.fixture
def restorable(
    live: LiveHarness, stack: Embedded, results_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Restorable]:
    harness = live.harness
    output = replace(harness.pipeline.output, name=f"{harness.pipeline.output.name}-{harness.suffix}")
    harness.pipeline = replace(harness.pipeline, output=output)
    monkeypatch.setitem(
        pipelines.PIPELINES, (harness.pipeline.name, harness.pipeline.version), harness.pipeline
    )
    connect.ensure_topics(harness.kafka, [output])
    made = Restorable(live, stack, results_template, [])
    yield made
    for copy in made.copies:
        databases.drop_database(stack.postgres(), copy)
    for future in harness.admin.delete_topics([output.name], operation_timeout=10).values():
        future.result()


def test_a_replay_does_not_take_a_number_that_kafka_has_the_progress_of(restorable: Restorable) -> None:
    """The forgotten generation had other parameters: going on from it would mix days of two zones."""
    live = restorable.live
    live.harness.feed(1500)
    with live.running():
        live.settled(1)
    backup = restorable.backup()
    assert live.build(live.request(time_zone=KATHMANDU)).number == 2
    restorable.restore(backup)
    assert live.numbers() == [1]
    live.harness.feed(200)
    assert live.build().number == 3
    live.harness.feed(200)
    with live.running():
        live.settled(1)
        live.settled(3)
        assert live.compare(3).is_empty
    assert live.numbers() == [1, 3]


def test_a_replay_that_the_backup_knows_is_gone_on_with(restorable: Restorable) -> None:
    """Kafka is ahead of the row, with the same computation."""
    live = restorable.live
    live.harness.feed(1500)
    begun = build.begin(live.harness.kafka, live.harness.results, live.request())
    live.run(begun, build.slices(begun)[0][0])
    backup = restorable.backup()
    assert live.build().number == 2
    live.harness.feed(200)
    with live.running():
        live.settled(2)
    restorable.restore(backup)
    assert (live.build().number, live.state(2)) == (2, "candidate")
    live.harness.feed(200)
    with live.running():
        live.settled(1)
        live.settled(2)
        assert live.compare(2).is_empty


def test_the_public_topic_is_compared_after_each_restore_whatever_number_a_promotion_has(
    restorable: Restorable,
) -> None:
    live = restorable.live
    live.harness.feed(600)
    with restorable.running():
        restorable.published(UTC_ZONE)
    before_promotion = restorable.backup()
    with restorable.running():
        assert restorable.replayed(KATHMANDU) == 2
        restorable.published(KATHMANDU)
    after_promotion = restorable.backup()
    with restorable.running():
        assert live.rollback().promotion_number == 3
        restorable.published(UTC_ZONE)
    # Promotion 2 is shown again, whose positions Kafka has, and then 3, likewise.
    restorable.restore(after_promotion)
    live.harness.feed(100)
    with restorable.running():
        restorable.published(KATHMANDU)
        assert live.rollback().promotion_number == 3
        restorable.published(UTC_ZONE)
        assert live.rollback().promotion_number == 4
        restorable.published(KATHMANDU)
    # So is 1, and another generation becomes the one of promotion 2.
    restorable.restore(before_promotion)
    live.harness.feed(100)
    with restorable.running():
        restorable.published(UTC_ZONE)
        assert restorable.replayed("America/New_York") == 3
        restorable.published("America/New_York")
    # An empty database: everything again, under a number of which Kafka has nothing.
    assert restorable.begin_anew().number == 4
    live.harness.feed(100)
    with restorable.running():
        live.settled(4)
        restorable.published(UTC_ZONE)


def test_an_active_generation_that_kafka_has_no_more_is_named_and_an_empty_database_begins_anew(
    restorable: Restorable,
) -> None:
    live, harness, kafka = restorable.live, restorable.live.harness, restorable.stack.kafka
    harness.feed(600)
    with live.running():
        live.settled(1)
    backup = restorable.backup()
    with restorable.running():
        assert restorable.replayed(KATHMANDU) == 2
        assert retirement.retire(kafka, harness.results, harness.pipeline.name, 1).topics == 3
        restorable.published(KATHMANDU)
    restorable.restore(backup)
    gone = (
        r"topic .*\.g1\..* is gone .*restored to before the generation was retired\? see .*docs/operations.md"
    )
    stop = threading.Event()
    with pytest.raises(Fatal, match=gone):
        supervisor.run(kafka, live.results, harness.pipeline.name, 0, live.folder, stop)
    for run in (postgres.run, publisher.run):
        with pytest.raises(Fatal, match=gone):
            run(kafka, live.results, stop)
    assert restorable.begin_anew().number == 1
    harness.feed(100)
    with restorable.running():
        live.settled(1)
        restorable.published(UTC_ZONE)


def test_a_standby_that_kafka_has_no_more_is_given_up_and_can_be_retired(
    restorable: Restorable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "AGAIN_SECONDS", ())
    live, harness = restorable.live, restorable.live.harness
    harness.feed(300)
    with live.running():
        restorable.replayed(KATHMANDU)
    backup = restorable.backup()
    retirement.retire(harness.kafka, harness.results, harness.pipeline.name, 1)
    restorable.restore(backup)
    harness.feed(100)
    with live.running():
        wait_until(lambda: live.state(1) == "failed")
        wait_until(lambda: restorable.rows(2) == restorable.expected(KATHMANDU))
    retirement.retire(harness.kafka, harness.results, harness.pipeline.name, 1)
    assert (live.state(1), live.state(2)) == ("retired", "active")
