"""A block's plan beside what counts, against the same row by row."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.csv.changes import plan
from sources.csv.sale_index import STORED_SCHEMA
from sources.csv.validate import COLUMNS, SCHEMA

# Few ids and few contents, so that they meet often.
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((1, 2)), st.booleans()), max_size=12)


def frame(rows: list[tuple[str, int, bool]]) -> pl.DataFrame:
    records = [(*_content(i, amount), line, takes_back) for line, (i, amount, takes_back) in enumerate(rows)]
    return pl.DataFrame(records, schema=SCHEMA, orient="row")


def _content(sale_id: str, amount: int) -> tuple[Any, ...]:
    return (sale_id, 0, "Ulm", "DE", "s", "Ada", "tv", 1, amount, "EUR")


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_blocks_say_what_their_rows_say_one_by_one(blocks: list[list[tuple[str, int, bool]]]) -> None:
    counts: dict[str, int] = {}
    stored = pl.DataFrame(schema=STORED_SCHEMA)
    seq = 1
    for rows in blocks:
        expected: list[tuple[str, int, bool]] = []
        duplicates = corrections = reversals = 0
        unknown = []
        for line, (sale_id, amount, takes_back) in enumerate(rows):
            was = counts.get(sale_id)
            if takes_back and was is None:
                unknown.append(line)
            elif takes_back:
                expected.append((sale_id, counts.pop(sale_id), True))
                reversals += 1
            elif was == amount:
                duplicates += 1
            else:
                if was is not None:
                    expected.append((sale_id, was, True))
                    corrections += 1
                expected.append((sale_id, amount, False))
                counts[sale_id] = amount
        made = plan(frame(rows), stored)
        assert made.events.select("sale_id", "amount", "reversal").rows() == expected
        assert made.events.columns == [*COLUMNS, "reversal"]
        assert (made.duplicates, made.corrections, made.reversals, made.unknown) == (
            duplicates, corrections, reversals, unknown,
        )  # fmt: skip
        assert made.accepted + duplicates + reversals + len(unknown) == len(rows)
        assert sum(made.amounts().values()) == sum(-a if back else a for _, a, back in expected)
        changed = made.changed(seq).select(list(STORED_SCHEMA))
        stored = pl.concat(
            [stored.join(changed, on="sale_id", how="anti"), changed.filter(pl.col("seq") > 0)]
        )
        assert dict(stored.select("sale_id", "amount").iter_rows()) == counts
        seq += len(expected)


def test_amounts_beyond_64_bits_add_up() -> None:
    rows = [(f"a{n}", 10**18 - 1, False) for n in range(20)]
    made = plan(frame(rows), pl.DataFrame(schema=STORED_SCHEMA))
    assert made.amounts() == {"EUR": 20 * (10**18 - 1)}
