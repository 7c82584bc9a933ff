"""The join over topics of its own: a worker process, sink and publisher in threads."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from contracts.schemas import load
from contracts.settings import ResultsDbSettings
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS
from kafka_client import clients as connect
from kafka_client.registry import Registry
from observability.waits import Cancelled
from stack.embedded import Embedded
from streaming.engine.pipeline import Parameters
from streaming.generations import catalog
from streaming.pipelines import PIPELINES
from streaming.pipelines.enriched_sales import V1
from streaming.sink.postgres import StateSink
from streaming.sink.publisher import Publisher
from streaming.sink.targets import active, live
from tests.support.events import confirmation, sale_event
from tests.support.join_oracle import oracle, sale_facts
from tests.support.kafka import committed_values
from tests.support.pipeline_harness import worker_process

START = datetime(2026, 3, 1, tzinfo=UTC)


class JoinHarness:
    """One generation of the join over topics of its own; a worker process, sink and publisher in threads."""

    def __init__(
        self,
        stack: Embedded,
        results: ResultsDbSettings,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.kafka, self.folder, self.suffix = stack.kafka, folder, uuid4().hex[:10]
        self.results_url = results.results_db_url.get_secret_value()
        self.engine = create_engine(self.results_url, poolclass=NullPool)
        sources = [replace(each.source, name=f"{each.source.name}-{self.suffix}") for each in V1.inputs]
        output = replace(V1.output, name=f"{V1.output.name}-{self.suffix}")
        self.pipeline = replace(V1.over(*sources), name=f"{V1.name}-{self.suffix}", output=output)
        # The sink finds a pipeline's value by its name.
        monkeypatch.setitem(PIPELINES, (self.pipeline.name, 1), self.pipeline)
        self.sides = [
            replace(topic, name=f"{topic.name}-{self.suffix}")
            for topic in (SOURCE_POSITIONS, LATE_EVENTS, DEAD_LETTERS)
        ]
        connect.ensure_topics(self.kafka, [*self.sides, output])
        self.registry = Registry(self.kafka)
        self.codecs = [self.registry.codec(topic.subject, load(topic.schema)) for topic in sources]
        self.positions = self.registry.codec(self.sides[0].subject, load(self.sides[0].schema))
        self.public = self.registry.codec(output.subject, load(output.schema))
        catalog.create(
            self.kafka,
            self.engine,
            self.pipeline,
            Parameters("UTC", timedelta(hours=1), "1-day"),
            reason="test",
            created_by="test",
        )
        self.producer = connect.transactional_producer(self.kafka, f"test-{self.suffix}")
        self.producer.init_transactions(60)
        self.sales: list[dict[str, Any]] = []
        self.payments: list[dict[str, Any]] = []
        self._live: dict[str, dict[str, Any]] = {}
        self._seq = {"postgres": 0, "csv": 0, "soap": 0}
        self._chance = random.Random(5)
        self.stop = threading.Event()
        self.processes: list[subprocess.Popen[bytes]] = []
        with self.engine.connect() as connection:
            (entry,) = live(connection)
            (shown,) = active(connection).values()
        sink = StateSink(self.kafka, self.engine, self.registry, entry.target())
        publisher = Publisher(self.kafka, self.registry, shown)
        self.failures: list[BaseException] = []
        self.threads = [
            threading.Thread(target=self._guarded, args=(each.run,)) for each in (sink, publisher)
        ]
        for thread in self.threads:
            thread.start()

    def _guarded(self, run: Any) -> None:
        try:
            run(self.stop)
        except Cancelled:
            pass
        except BaseException as error:
            self.failures.append(error)

    # -- feeding

    def feed(self, count: int) -> None:
        """That many facts of both kinds in one transaction, in an order of chance."""
        self.producer.begin_transaction()
        for _ in range(count):
            if self._chance.random() < 0.5:
                for event in self._sale():
                    self._send(0, event)
                    self.sales.append(event)
            else:
                payment = self._payment()
                self._send(1, payment)
                self.payments.append(payment)
        self.producer.commit_transaction(60)

    def frontiers(self, **frontiers: datetime) -> None:
        self.producer.begin_transaction()
        for source, at in frontiers.items():
            record = {"source": source, "next_seq": self._seq[source], "frontier": at, "detail": "{}"}
            value = self.positions.encode(("electrored.SourcePosition", record))
            self.producer.produce(self.sides[0].name, value, source.encode(), partition=0)
        self.producer.commit_transaction(60)

    def _send(self, number: int, record: dict[str, Any]) -> None:
        topic = self.pipeline.inputs[number].source.name
        self.producer.produce(topic, self.codecs[number].encode(record), record["sale_id"].encode())
        self.producer.poll(0)

    def _next(self, source: str) -> int:
        self._seq[source] += 1
        return self._seq[source]

    def _sale(self) -> list[dict[str, Any]]:
        """A new sale, a correction of one, or its reversal."""
        chance = self._chance
        sale_id = f"s{chance.randrange(3_000)}"
        old = self._live.pop(sale_id, None)
        events = []
        if old is not None:
            changes = {"operation": "REVERSAL", "quantity": -1, "amount": -old["amount"]}
            events.append(old | {"seq": self._next(old["source"])} | changes)
        if old is None or chance.random() < 0.6:
            source = old["source"] if old else chance.choice(["postgres", "csv"])
            self._live[sale_id] = sale_event(
                self._next(source),
                source=source,
                sale_id=sale_id,
                sold_at=START + timedelta(seconds=chance.randrange(86_400)),
                recorded_at=START,
                city=f"city-{chance.randrange(5)}",
                amount=Decimal(chance.choice([100_000, 200_000])).scaleb(-4),
                currency=chance.choice(["EUR", "EUR", "USD"]),
            )
            events.append(self._live[sale_id])
        return events

    def _payment(self) -> dict[str, Any]:
        chance = self._chance
        if self.payments and chance.random() < 0.3:
            known = chance.choice(self.payments)
            given_back = {
                "status": "REFUNDED",
                "confirmed_at": known["confirmed_at"] + timedelta(seconds=chance.randrange(3)),
            }
            return known | {"seq": self._next("soap")} | (given_back if chance.random() < 0.5 else {})
        seq = self._next("soap")
        return confirmation(
            seq,
            payment_id=f"p{seq}",
            sale_id=f"s{chance.randrange(3_000)}",
            amount=Decimal(chance.choice([100_000, 200_000])).scaleb(-4),
            currency=chance.choice(["EUR", "EUR", "USD"]),
            confirmed_at=START + timedelta(seconds=chance.randrange(86_400)),
            recorded_at=START,
        )

    # -- results

    def rows(self) -> dict[str, Any]:
        """The view's rows, as the oracle has them. The view is of the pipeline's real name, this one has its own."""
        with self.engine.connect() as connection:
            found = connection.execute(text("SELECT * FROM joined_sales WHERE sales_count <> 0")).mappings()
            answers: dict[str, Any] = {}
            for row in found:
                sales, _, _ = answers.setdefault(
                    row["sale_id"], ({}, payment_facts(row["payments"]), row["ambiguous"])
                )
                sales[row["source"]] = (sale_facts(row), row["status"])
        return answers

    def published(self) -> dict[str, Any]:
        """The public topic's newest values by key, as the oracle has them."""
        newest = dict(committed_values(self.kafka, self.pipeline.output))
        answers = {}
        for key, value in newest.items():
            if value is None:
                continue
            record = self.public.decode(value)
            assert key == record["sale_id"].encode()
            answers[record["sale_id"]] = (
                {s["source"]: (sale_facts(s), s["status"]) for s in record["sales"]},
                payment_facts(record["payments"]),
                record["ambiguous"],
            )
        return answers

    def watermark(self) -> datetime | None:
        with self.engine.connect() as connection:
            found: list[datetime | None] = list(
                connection.scalars(text("SELECT watermark FROM sink_positions"))
            )
        known = [at for at in found if at is not None]
        return min(known) if len(known) == len(found) else None

    def settled(self) -> None:
        """Wait until table and topic are the join; the error shows how they differ."""
        expected = oracle(self.sales, self.payments)
        for what in (self.rows, self.published):
            deadline = time.monotonic() + 120
            while (actual := what()) != expected:
                assert not self.failures
                if time.monotonic() > deadline:
                    wrong = {k for k in expected.keys() | actual.keys() if expected.get(k) != actual.get(k)}
                    sample = {k: (expected.get(k), actual.get(k)) for k in sorted(wrong)[:2]}
                    raise AssertionError(f"{what.__name__}: {len(wrong)} of {len(expected)} differ: {sample}")
                time.sleep(0.3)

    # -- workers

    def worker(self, slot: int = 0) -> subprocess.Popen[bytes]:
        given = {
            "suffix": self.suffix,
            "pipeline": V1.name,
            "slot": slot,
            "results_url": self.results_url,
            "state_dir": str(self.folder / "state"),
        }
        process = worker_process(self.kafka, given, self.folder / f"worker{slot}.log")
        self.processes.append(process)
        return process

    def close(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.engine.dispose()
        names = [each.source.name for each in self.pipeline.inputs] + [topic.name for topic in self.sides]
        names += [self.pipeline.output.name]
        # A client that is destroyed answers nothing any more: it has to outlive its futures.
        admin = connect.admin(self.kafka)
        for future in admin.delete_topics(names, operation_timeout=10).values():
            future.exception(30)


def payment_facts(payments: Any) -> dict[str, Any]:
    return {p["payment_id"]: (Decimal(p["amount"]), p["currency"], p["status"]) for p in payments}
