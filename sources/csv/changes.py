"""The events that rows make, given the sales that count so far. Pure, over whole columns.

A SALE of an id that has none is a sale; the same again is a duplicate; another content is a correction, the reversal
of the old and the sale of the new. A REVERSAL reverses the sale that counts; an unknown one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from sources.csv.results import Counts
from sources.csv.validate import COLUMNS, CONTENT


@dataclass(frozen=True)
class Plan:
    """`events`: COLUMNS and `reversal`, in the order of their seqs. `unknown`: lines that reverse an unknown sale.

    `corrected`: the seqs of what counted before and is corrected.
    """

    events: pl.DataFrame
    accepted: int
    duplicates: int
    corrections: int
    reversals: int
    unknown: list[int]
    corrected: list[int] = field(default_factory=list)

    def changed(self, first_seq: int) -> pl.DataFrame:
        """The sale that counts for each id afterwards, as `SaleIndex` stores it; seq 0: none."""
        numbered = self.events.with_row_index("seq", first_seq).with_columns(pl.col("seq").cast(pl.Int64))
        newest = numbered.unique("sale_id", keep="last", maintain_order=True)
        return newest.with_columns(
            pl.when(pl.col("reversal")).then(0).otherwise(pl.col("seq")).alias("seq")
        ).drop("reversal")

    def counts(self, rows: int, rejected: int) -> Counts:
        """Of so many rows; `rejected` includes those that are not in the plan."""
        sold, equal = self.accepted, self.duplicates
        return Counts(rows, sold, equal, self.corrections, self.reversals, rejected, self.amounts())

    def amounts(self) -> dict[str, int]:
        """What the events add up to by currency, in ten-thousandths."""
        sign = pl.when(pl.col("reversal")).then(-1).otherwise(1)
        # 20,000 amounts below 10^18 are more than 64 bits.
        amount = (sign * pl.col("amount")).cast(pl.Int128).sum()
        return dict(self.events.group_by("currency").agg(amount).sort("currency").iter_rows())


def plan(rows: pl.DataFrame, known: pl.DataFrame) -> Plan:
    """`rows` as `validate.SCHEMA` has them, in the file's order; `known`: the sales that count for their ids."""
    before = {name: f"before_{name}" for name in CONTENT}
    frame = rows.with_row_index("row").join(
        known.select(
            "sale_id", *(pl.col(name).alias(before[name]) for name in CONTENT), is_known=pl.lit(True)
        ),
        on="sale_id",
        how="left",
        maintain_order="left",
    )
    frame = frame.with_columns(pl.col("is_known").fill_null(False))
    if rows["sale_id"].n_unique() < rows.height:
        frame = _with_earlier_rows(frame, before)
    is_same = pl.all_horizontal(pl.col(name) == pl.col(before[name]) for name in CONTENT).fill_null(False)
    sale, is_known = ~pl.col("takes_back"), pl.col("is_known")
    frame = frame.with_columns(
        reverses=is_known & (pl.col("takes_back") | ~is_same),
        sells=sale & ~(is_known & is_same),
    )
    reversed_rows = frame.filter("reverses").select(
        pl.col("row") * 2, "sale_id", *(pl.col(before[name]).alias(name) for name in CONTENT), reversal=True
    )
    sold = frame.filter("sells").select(pl.col("row") * 2 + 1, *COLUMNS, reversal=False)
    events = (
        pl.concat([reversed_rows, sold]).sort("row").select(*COLUMNS, "reversal")
        if len(reversed_rows)
        else sold
    )
    counts = frame.select(
        accepted=pl.col("sells").sum(),
        duplicates=(sale & ~pl.col("sells")).sum(),
        corrections=(pl.col("sells") & pl.col("reverses")).sum(),
        reversals=(pl.col("takes_back") & is_known).sum(),
    ).row(0, named=True)
    unknown = frame.filter(pl.col("takes_back") & ~is_known)["line"].to_list()
    corrections = frame.filter("sells", "reverses").select("sale_id")
    corrected = known.join(corrections, on="sale_id", how="semi")["seq"].to_list()
    return Plan(events.select(*COLUMNS, "reversal"), unknown=unknown, corrected=corrected, **counts)


def _with_earlier_rows(frame: pl.DataFrame, before: dict[str, str]) -> pl.DataFrame:
    """What counts before a row is what the previous row of the same id left: its content, or nothing."""
    has_earlier = pl.col("row").shift(1).over("sale_id").is_not_null()
    took_back = pl.col("takes_back").shift(1).over("sale_id").fill_null(False)
    return frame.with_columns(
        pl.when(has_earlier).then(~took_back).otherwise(pl.col("is_known")).alias("is_known"),
        *(
            pl.when(has_earlier).then(pl.col(name).shift(1).over("sale_id")).otherwise(pl.col(was)).alias(was)
            for name, was in before.items()
        ),
    )
