"""Generations of real pipelines in a results database, with rows as the sink would have left them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.differences import Shape
from contracts.settings import KafkaSettings
from contracts.tables import active_generations, barriers, generations, metadata
from streaming.replay.difference import shape_of
from streaming.replay.errors import Busy, NotInTime, RequestRefused
from tests.support import generation_rows
from tests.support.generation_rows import generation_row, write_watermarks

DAY = generation_rows.DAY
OPEN = ("requested", "targeted", "reached")
Result = dict[str, Any]


@dataclass(frozen=True)
class HeldBarrier:
    """A barrier that a test put into the table; `check` reads, in the connection's snapshot, its state."""

    id: Any
    targets: Mapping[int, int]
    checked: Callable[[], None]

    def check(self, connection: Connection) -> None:
        state = connection.scalar(select(barriers.c.state).where(barriers.c.id == self.id))
        if state != "reached":
            raise RequestRefused(f"the barrier stands at {state}")
        self.checked()


@dataclass
class BarrierHold:
    """Holds generations as the coordinator does, where no worker runs that would have to be waited for."""

    state: str = "reached"
    targets: Mapping[int, int] = field(default_factory=lambda: {0: 7, 1: 9})
    held: list[tuple[int, ...]] = field(default_factory=list)
    broken: int | None = None

    def checked(self) -> None:
        """What happens between the check and the next statement."""

    @contextmanager
    def __call__(
        self, kafka: KafkaSettings, results: Engine, pipeline: str, numbers: Sequence[int], timeout: float
    ) -> Iterator[HeldBarrier]:
        self.held.append(tuple(numbers))
        if self.broken in numbers:
            raise NotInTime(f"g{self.broken} does not come to the barrier")
        now = datetime.now(UTC)
        try:
            with results.begin() as connection:
                # One that a killed process left is past its time.
                connection.execute(update(barriers).where(barriers.c.state.in_(OPEN)).values(state="expired"))
                made = connection.scalar(
                    insert(barriers)
                    .values(
                        pipeline=pipeline,
                        generations=list(numbers),
                        state=self.state,
                        targets={str(p): offset for p, offset in self.targets.items()},
                        created_at=now,
                        expires_at=now + timedelta(seconds=timeout),
                    )
                    .returning(barriers.c.id)
                )
        except IntegrityError as error:
            raise Busy(f"{pipeline} is being compared already") from error
        try:
            yield HeldBarrier(made, self.targets, self.checked)
        finally:
            with results.begin() as connection:
                connection.execute(
                    update(barriers)
                    .where(barriers.c.id == made, barriers.c.state.in_(OPEN))
                    .values(state="released")
                )


@dataclass
class ResultsFixture:
    """The results database of one pipeline."""

    engine: Engine
    pipeline: str = "top-sales-by-city"

    @property
    def shape(self) -> Shape:
        return shape_of(self.pipeline, 1)

    def generation(self, number: int, state: str, **more: Any) -> None:
        with self.engine.begin() as connection:
            row = generation_row(self.pipeline, number, state, **more)
            connection.execute(insert(generations).values(row))
            if state == "active":
                pointer = {"pipeline": self.pipeline, "generation": number, "promotion_number": 1}
                connection.execute(insert(active_generations).values(pointer))

    def write(self, number: int, rows: Sequence[Result]) -> None:
        """Rows of a generation, each with what the engine notes beside the result."""
        noted = {
            "generation": number,
            "updated_at": datetime.now(UTC),
            "apply_number": random.randrange(1000),
        }
        table = self.shape.table
        if "restated_at" in table.columns:
            noted["restated_at"] = random.choice([None, DAY + timedelta(days=random.randrange(9))])
        if rows:
            with self.engine.begin() as connection:
                connection.execute(insert(table), [noted | row for row in rows])

    def reached(self, number: int, *watermarks: datetime | None) -> None:
        """What the sink writes of a generation's partitions."""
        with self.engine.begin() as connection:
            write_watermarks(connection, self.pipeline, number, watermarks)

    def pointer(self) -> tuple[int, int]:
        with self.engine.connect() as connection:
            row = connection.execute(select(active_generations)).one()
            return row.generation, row.promotion_number

    def states(self) -> dict[int, str]:
        with self.engine.connect() as connection:
            found = connection.execute(select(generations.c.number, generations.c.state))
            return {number: state for number, state in found}  # noqa: C416

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that a refused request must leave as it is; barriers come and go."""
        with self.engine.connect() as connection:
            return {
                name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
                for name, table in metadata.tables.items()
                if not name.startswith("barrier")
            }


def window_total(total: str, start: datetime = DAY, days: int = 1, **more: Any) -> Result:
    """A group's total in one window."""
    return {
        "window_start": start, "window_end": start + timedelta(days=days), "country": "DE", "currency": "EUR",
        "total": Decimal(total), "sales_count": 1, "late_count": 0, "late_amount": Decimal(0),
    } | more  # fmt: skip


def city(
    name: str, total: str, *, day: int = 0, currency: str = "EUR", count: int = 1, late: str = "0"
) -> Result:
    late_facts = {"late_count": int(Decimal(late) != 0), "late_amount": Decimal(late)}
    start = DAY + timedelta(days=day)
    return window_total(total, start, city=name, currency=currency, sales_count=count) | late_facts


def salesman(who: str, total: str, *, country: str = "DE", name: str = "Ada", count: int = 1) -> Result:
    names = {"salesman_id": who, "salesman_name": name}
    return window_total(total, days=30, country=country, sales_count=count) | names


def sale(sale_id: str, amount: str, *, source: str = "postgres", count: int = 1, **more: Any) -> Result:
    return {
        "sale_id": sale_id, "source": source, "currency": "EUR", "sales_count": count, "quantity": 1,
        "amount": Decimal(amount), "sold_at": DAY + timedelta(hours=12), "country": "DE", "city": "Berlin",
        "salesman_id": "s1", "salesman_name": "Ada", "product": "tv",
        "status": "PENDING", "payments": [], "ambiguous": False,
    } | more  # fmt: skip
