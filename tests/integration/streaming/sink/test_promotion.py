"""What promotion, rollback and retirement do to the public topic, while sink and publisher run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from contracts.settings import KafkaSettings, ResultsDbSettings
from stack.embedded import Embedded
from streaming.engine.pipeline import Pipeline
from streaming.engine.transactions import Transactions
from streaming.replay import difference, promotion, retirement
from streaming.sink import postgres, publisher
from tests.support.results import BarrierHold
from tests.support.sink import GenerationFixture, Make, Public
from tests.support.threads import collecting

TIMEOUT_SECONDS = 90.0
MOST = 7


@contextmanager
def running(kafka: KafkaSettings, results: ResultsDbSettings) -> Iterator[None]:
    """Sink and publisher; what one of them died of is raised."""
    with collecting(
        lambda stop: postgres.run(kafka, results, stop), lambda stop: publisher.run(kafka, results, stop)
    ) as died:
        yield
    assert died == []


def applied(made: GenerationFixture, cities: int) -> None:
    for attempt in Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(TIMEOUT_SECONDS),
        wait=wait_fixed(0.05),
        reraise=True,
    ):
        with attempt:
            assert len(made.rows()) == cities


def test_changed_rows_and_tombstones_follow_a_promotion_in_bounded_transactions(
    stack: Embedded,
    results_db: ResultsDbSettings,
    engine: Engine,
    pipeline: Pipeline,
    make: Make,
    promote: Callable[[int], None],
    public: Public,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One has c0 to c39, two has c20 to c59; every second city of both differs."""
    monkeypatch.setattr(publisher, "TRANSACTION_RECORDS", MOST)
    sizes: list[int] = []
    real = Transactions.commit

    def counted(self: Transactions, records: Any, *args: Any, **more: Any) -> Any:
        sizes.append(len(records))
        return real(self, records, *args, **more)

    one, two = make(1), make(2, state="candidate")
    promote(1)
    one.write([one.total(f"c{n}", "1") for n in range(40)])
    two.write([two.total(f"c{n}", "1" if n % 2 else "2") for n in range(20, 60)])
    before = {f"c{n}": "1.0000" for n in range(40)}
    after = {f"c{n}": "1.0000" if n % 2 else "2.0000" for n in range(20, 60)}
    kafka, hold = stack.kafka, BarrierHold()
    with running(kafka, results_db):
        public.until(before)
        applied(one, 40)
        applied(two, 40)
        said = len(public.records)
        monkeypatch.setattr(Transactions, "commit", counted)
        seen = difference.take(kafka, engine, pipeline.name, 2, hold=hold)
        assert (seen.added, seen.removed, seen.changed) == (20, 20, 10)
        promotion.promote(
            kafka, engine, pipeline.name, 2, fingerprint=seen.fingerprint, approved_by="a test", hold=hold
        )
        public.until(after)
        written = public.records[said:]
        assert len(written) == seen.count, "what did not change is not said again"
        assert sum(value is None for _, value in written) == seen.removed
        assert sum(sizes) == seen.count
        assert max(sizes) <= MOST
        promotion.rollback(kafka, engine, pipeline.name, 1, reason="a test", approved_by="a test", hold=hold)
        public.until(before)
        assert retirement.retire(kafka, engine, pipeline.name, 2).rows == 40
        # What is gone disturbs neither: the active generation goes on, to both.
        one.write([one.total("c0", "3"), one.total("after", "4")])
        public.until(before | {"c0": "3.0000", "after": "4.0000"})
        applied(one, 41)
    assert two.rows() == {}
