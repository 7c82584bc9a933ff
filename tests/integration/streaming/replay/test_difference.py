"""The difference of two generations: exact, whatever else rows hold, and how people and programs get it."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from contracts.differences import Shape, changes, csv_of
from contracts.tables import difference_rows
from streaming.replay import difference, display
from streaming.replay.difference import Difference
from streaming.replay.errors import RequestRefused
from tests.support.results import DAY, BarrierHold, Result, ResultsFixture, city, sale, salesman

Key = tuple[Any, ...]
Seen = tuple[str, Any, Any, int | None, int | None]


def taken(results: Engine, pipeline: str, number: int = 2, hold: BarrierHold | None = None) -> Difference:
    """Of the generation and the active one, as `diff` takes it."""
    with (
        (hold or BarrierHold())(None, results, pipeline, (1, number), 20) as held,  # type: ignore[arg-type]
        results.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
    ):
        held.check(connection)
        found = difference.compute(connection, held, pipeline, number)
        connection.commit()
        return found


# -- the oracle: plain Python over the rows of both


def ranks(shape: Shape, rows: Sequence[Result]) -> dict[Key, int | None]:
    """As the API ranks: total descending, id ascending, within the lists that it shows."""
    if shape.table.name == "joined_sales":
        return {key(shape, row): None for row in rows}
    within, ids = {
        "city_totals": (("currency",), ("country", "city")),
        "salesman_totals": (("country", "currency"), ("salesman_id",)),
    }[shape.table.name]
    lists: dict[Key, list[Result]] = {}
    for row in rows:
        lists.setdefault((row["window_start"], *(row[name] for name in within)), []).append(row)
    found: dict[Key, int | None] = {}
    for listed in lists.values():
        listed.sort(key=lambda row: (-row["total"], *(row[name].encode() for name in ids)))
        found |= {key(shape, row): rank for rank, row in enumerate(listed, 1)}
    return found


def key(shape: Shape, row: Result) -> Key:
    window = (row["window_start"], row["window_end"]) if shape.windowed else (None, None)
    return (*window, *(row[name] for name in shape.group))


def said(shape: Shape, row: Result | None) -> dict[str, Any] | None:
    """What is stored of a row: money with its four decimals, as text."""
    if row is None:
        return None
    shown = {name: row[name] for name in shape.values}
    for name, value in shown.items():
        if isinstance(value, Decimal):
            shown[name] = str(value.quantize(Decimal("0.0001")))
        if isinstance(value, datetime):
            shown[name] = f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00"
    return shown


def expected(shape: Shape, base: Sequence[Result], made: Sequence[Result]) -> dict[Key, Seen]:
    before, after = (
        {key(shape, row): row for row in side if row["sales_count"] != 0} for side in (base, made)
    )
    rank_before, rank_after = (ranks(shape, list(side.values())) for side in (before, after))
    found: dict[Key, Seen] = {}
    for group in before.keys() | after.keys():
        one, other = said(shape, before.get(group)), said(shape, after.get(group))
        if one != other:
            kind = "added" if one is None else "removed" if other is None else "changed"
            found[group] = (kind, one, other, rank_before.get(group), rank_after.get(group))
    return found


def stored(results: Engine, shape: Shape, found: Difference) -> dict[Key, Seen]:
    with results.connect() as connection:
        rows = connection.execute(
            select(difference_rows).where(difference_rows.c.difference == found.id)
        ).all()
    made = {
        (row.window_start, row.window_end, *(row.grp[name] for name in shape.group)): (
            row.kind,
            row.before,
            row.after,
            row.rank_before,
            row.rank_after,
        )
        for row in rows
    }
    assert len(made) == len(rows), "a group is stored once"
    return made


def some(seed: random.Random, pipeline: str) -> list[Result]:
    """Rows of few groups, so that two such lists have most of them in common."""

    def money() -> str:
        return f"{seed.choice([1, 2, 2, 3, 10**13])}.{seed.choice(['0', '0001', '5'])}"

    count = [0, 1, 1, 1, 2]
    if pipeline == "top-sales-by-city":
        return [
            city(name, money(), day=day, currency=currency, count=seed.choice(count), late=seed.choice("001"))
            for name in ("Aachen", "Zürich", "köln", "Ärö")
            for day in range(3)
            for currency in ("EUR", "USD")
            if seed.random() < 0.9
        ]
    if pipeline == "top-salesman-by-country":
        return [
            salesman(who, money(), country=country, name=seed.choice(["Ada", "Bo"]), count=seed.choice(count))
            for who in ("s1", "s2", "S3", "é")
            for country in ("DE", "FR")
            if seed.random() < 0.9
        ]
    paid = [{"payment_id": "p", "amount": "1.0000", "status": "CONFIRMED"}]
    return [
        sale(
            f"s{n}",
            money(),
            source=source,
            count=seed.choice(count),
            status=seed.choice(["PENDING", "CONFIRMED"]),
            payments=seed.choice([[], paid]),
            currency=seed.choice(["EUR", "USD"]),
            sold_at=DAY + timedelta(hours=seed.choice([1, 2])),
        )
        for n in range(12)
        for source in ("postgres", "csv")
        if seed.random() < 0.9
    ]


@pytest.mark.parametrize("pipeline", ["top-sales-by-city", "top-salesman-by-country", "enriched-sales"])
@pytest.mark.parametrize("seed", range(3))
def test_is_what_a_plain_comparison_finds(engine: Engine, pipeline: str, seed: int) -> None:
    chosen = random.Random(seed)
    filled = ResultsFixture(engine, pipeline)
    base = some(chosen, pipeline)
    kept = {key(filled.shape, row): row for row in base if chosen.random() < 0.5}
    made = list(({key(filled.shape, row): row for row in some(chosen, pipeline)} | kept).values())
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.generation(3, "standby")
    filled.write(1, base)
    filled.write(2, made)
    filled.write(3, some(chosen, pipeline))
    shape = filled.shape
    found = taken(engine, pipeline)
    oracle = expected(shape, base, made)
    assert stored(engine, shape, found) == oracle
    kinds = [kind for kind, *_ in oracle.values()]
    assert (found.added, found.removed, found.changed) == tuple(
        kinds.count(kind) for kind in ("added", "removed", "changed")
    )
    visible = [[row for row in side if row["sales_count"] != 0] for side in (base, made)]
    assert found.compared == len({key(shape, row) for side in visible for row in side})
    for total, side in zip((found.before_total, found.after_total), visible, strict=True):
        sums: dict[str, Decimal] = {}
        for row in side:
            sums[row["currency"]] = sums.get(row["currency"], Decimal(0)) + row[shape.money]
        assert {currency: Decimal(amount) for currency, amount in total.items()} == sums
    assert difference.newest(engine, pipeline, 2) == found
    assert 0 < found.count < found.compared, (
        "the rows of this seed have something in common and something not"
    )


def test_when_a_row_was_written_is_no_part_of_it(engine: Engine) -> None:
    """`write` gives every row another time, apply number and time of restatement."""
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    rows = [city("Berlin", "1", late="1"), city("Ulm", "2")]
    filled.write(1, rows)
    filled.write(2, [*rows, city("Hidden", "0", count=0, late="1")])
    found = taken(engine, filled.pipeline)
    assert found.is_empty
    assert found.compared == 2


def test_what_came_late_is_part_of_it(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1")])
    filled.write(2, [city("Berlin", "1", late="1")])
    assert taken(engine, filled.pipeline).changed == 1


def test_windows_that_begin_alike_and_end_differently_are_two(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1")])
    filled.write(2, [city("Berlin", "1") | {"window_end": DAY + timedelta(days=30)}])
    found = taken(engine, filled.pipeline)
    assert (found.added, found.removed, found.changed) == (1, 1, 0)


def test_the_fingerprint_stands_for_the_rows_and_the_position(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1"), city("Ulm", "2")])
    filled.write(2, [city("Berlin", "1.5"), city("Ulm", "2")])
    first = taken(engine, filled.pipeline).fingerprint
    assert taken(engine, filled.pipeline).fingerprint == first
    elsewhere = taken(engine, filled.pipeline, hold=BarrierHold(targets={0: 7, 1: 10})).fingerprint
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE city_totals SET total = 1.5001 WHERE generation = 2 AND city = 'Berlin'")
        )
    other = taken(engine, filled.pipeline).fingerprint
    with engine.begin() as connection:
        connection.execute(text("UPDATE active_generations SET promotion_number = 2"))
    promoted = taken(engine, filled.pipeline).fingerprint
    assert len({first, elsewhere, other, promoted}) == 4


def test_rows_outside_of_the_range_are_counted(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate", range_start=DAY + timedelta(days=1), range_end=DAY + timedelta(days=3))
    filled.write(1, [city("Berlin", "1", day=day) for day in range(5)])
    filled.write(2, [city("Berlin", "2", day=day) for day in range(5)])
    found = taken(engine, filled.pipeline)
    assert (found.changed, found.outside) == (5, 3)


def test_what_is_written_after_the_snapshot_is_not_in_it(engine: Engine) -> None:
    """So live traffic need not wait for the comparison."""
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1")])
    filled.write(2, [city("Berlin", "1")])
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        with BarrierHold()(None, engine, filled.pipeline, (1, 2), 20) as held:  # type: ignore[arg-type]
            held.check(connection)
        filled.write(2, [city("Late", "1")])
        assert difference.compute(connection, held, filled.pipeline, 2).is_empty
        connection.commit()
    assert taken(engine, filled.pipeline).added == 1


@pytest.mark.parametrize("state", ["requested", "targeted", "released", "expired"])
def test_without_a_reached_barrier_it_is_refused_and_nothing_is_stored(engine: Engine, state: str) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    before = filled.everything()
    with pytest.raises(RequestRefused, match=state):
        taken(engine, filled.pipeline, hold=BarrierHold(state))
    assert filled.everything() == before


def test_ranks_are_those_of_the_view(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city(name, total) for name, total in (("b", "2"), ("a", "2"), ("B", "2"), ("c", "3"))])
    found = taken(engine, filled.pipeline)
    with engine.connect() as connection:
        shown = connection.execute(text("SELECT city, rank FROM top_sales_by_city")).all()
        listed = list(changes(connection, found.shape, found.id))
    assert {row.group["city"]: row.rank_before for row in listed} == {row.city: row.rank for row in shown}


def test_the_greatest_change_comes_first_measured_by_its_currency(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "100"), city("Ulm", "900"), city("Tokyo", "100000", currency="JPY")])
    filled.write(
        2,
        [
            city("Berlin", "950"),
            city("Tokyo", "101000", currency="JPY"),
            city("Ulm", "900"),
            city("New", "10"),
        ],
    )
    found = taken(engine, filled.pipeline)
    with engine.connect() as connection:
        listed = list(changes(connection, found.shape, found.id))
        assert [row.group["city"] for row in changes(connection, found.shape, found.id, 1)] == ["Berlin"]
    assert [(row.group["city"], row.change, row.share) for row in listed] == [
        ("Berlin", Decimal(850), Decimal("0.85")),
        ("Tokyo", Decimal(1000), Decimal("0.01")),
        ("New", Decimal(10), Decimal("0.01")),
    ]
    assert (listed[0].rank_before, listed[0].rank_after) == (2, 1)


def test_the_csv_has_every_row(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin, “old”", "1"), city("Ulm", "2")])
    filled.write(2, [city("Berlin, “old”", "1.5"), city("Neu\nstadt", "3")])
    found = taken(engine, filled.pipeline)
    with engine.connect() as connection:
        lines = "".join(csv_of(connection, found.shape, found.id))
    rows = {row["city"]: row for row in csv.DictReader(io.StringIO(lines))}
    assert {name: (row["kind"], row["before_total"], row["after_total"]) for name, row in rows.items()} == {
        "Berlin, “old”": ("changed", "1.0000", "1.5000"),
        "Ulm": ("removed", "2.0000", ""),
        "Neu\nstadt": ("added", "", "3.0000"),
    }
    assert rows["Ulm"]["change"] == "-2.0000"
    assert rows["Ulm"]["window_start"] == "2026-11-22T00:00:00+00:00"


def test_a_terminal_shows_what_it_comes_to(engine: Engine) -> None:
    from rich.console import Console

    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1"), city("Ulm", "2")])
    filled.write(2, [city("Berlin", "2.5"), city("Ulm", "2")])
    found = taken(engine, filled.pipeline)
    with engine.connect() as connection:
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(display.difference(found, changes(connection, found.shape, found.id, 20)))
    shown = console.export_text()
    for part in (
        "2 groups compared: 0 added, 0 removed, 1 changed",
        "+1.5",
        "+50.0000%",
        "2 → 1",
        found.fingerprint,
    ):
        assert part in shown


def test_of_two_that_are_taken_the_newer_counts(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    taken(engine, filled.pipeline)
    filled.write(2, [city("Berlin", "1")])
    second = taken(engine, filled.pipeline)
    assert difference.newest(engine, filled.pipeline, 2) == second
    assert difference.newest(engine, filled.pipeline, 3) is None


def test_with_itself_a_generation_is_not_compared(engine: Engine) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    with pytest.raises(RequestRefused, match="itself"):
        taken(engine, filled.pipeline, 1)
