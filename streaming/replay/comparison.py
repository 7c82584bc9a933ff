"""What of a results table is a result, and the SQL that compares those of two generations, group by group.

A group whose count is 0 is hidden everywhere, so it counts as absent. When a row was written, by which apply, and when
its window was restated say how the engine got there, and are no part of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import DateTime, Numeric, Table, TextClause, text

from contracts.tables import metadata
from streaming.engine.pipeline import Pipeline

_WINDOW = ("window_start", "window_end")
_NO_RESULT = ("generation", "updated_at", "restated_at", "apply_number")
# Within which columns a table is ranked, and by which ties are broken: as the views and the API say it.
_RANKED = {
    "city_totals": (("currency",), ("country", "city")),
    "salesman_totals": (("country", "currency"), ("salesman_id",)),
}
# What is summed up, by currency, to say how much a generation comes to.
_MONEY = {"city_totals": "total", "salesman_totals": "total", "joined_sales": "amount"}


@dataclass(frozen=True)
class Shape:
    """The columns of one results table, by what they mean for a comparison."""

    table: Table

    @classmethod
    def of(cls, pipeline: Pipeline) -> Shape:
        return cls(metadata.tables[pipeline.table])

    @property
    def windowed(self) -> bool:
        return "window_start" in self.table.columns

    @property
    def money(self) -> str:
        return _MONEY[self.table.name]

    @cached_property
    def group(self) -> tuple[str, ...]:
        """What names a group beside its window."""
        return tuple(c.name for c in self.table.primary_key if c.name not in ("generation", *_WINDOW))

    @cached_property
    def values(self) -> tuple[str, ...]:
        """What is said about a group."""
        known = (*_NO_RESULT, *_WINDOW, *self.group)
        return tuple(column.name for column in self.table.columns if column.name not in known)

    @property
    def totals(self) -> TextClause:
        """How many groups a generation shows, and what they come to, by currency."""
        return text(
            f"SELECT currency, count(*) AS groups, CAST(sum({self.money}) AS text) AS total FROM {self.table.name} "
            "WHERE generation = :generation AND sales_count <> 0 GROUP BY currency ORDER BY currency"
        )

    @property
    def compare(self) -> TextClause:
        """Stores every group that only one of two generations shows, or that they show differently.

        The key joins, so each group is looked at once; values are compared as columns, so money exactly. What is
        stored has money and times as text: JSON's numbers are not exact in every reader.
        """
        key = (*(_WINDOW if self.windowed else ()), *self.group)
        window = ", ".join(_WINDOW) if self.windowed else "NULL, NULL"
        before, after = (", ".join(f"{side}.{name}" for name in self.values) for side in "ba")
        return text(
            f"WITH b AS ({self._side('base')}), a AS ({self._side('generation')}) "
            "INSERT INTO difference_rows "
            "(difference, window_start, window_end, grp, kind, before, after, rank_before, rank_after) "
            f"SELECT :difference, {window}, {_object('', self.group, self.table)}, "
            "CASE WHEN b.sales_count IS NULL THEN 'added' WHEN a.sales_count IS NULL THEN 'removed' "
            "ELSE 'changed' END, "
            f"CASE WHEN b.sales_count IS NOT NULL THEN {_object('b.', self.values, self.table)} END, "
            f"CASE WHEN a.sales_count IS NOT NULL THEN {_object('a.', self.values, self.table)} END, "
            "b.rank, a.rank "
            f"FROM b FULL JOIN a USING ({', '.join(key)}) "
            f"WHERE ROW({before}) IS DISTINCT FROM ROW({after})"
        )

    def _side(self, generation: str) -> str:
        columns = ", ".join(
            (*(_WINDOW if self.windowed else ()), *self.group, *self.values, f"{self._rank} AS rank")
        )
        return (
            f"SELECT {columns} FROM {self.table.name} WHERE generation = :{generation} AND sales_count <> 0"
        )

    @property
    def _rank(self) -> str:
        if self.table.name not in _RANKED:
            return "CAST(NULL AS bigint)"
        within, ids = _RANKED[self.table.name]
        listed = ", ".join((*_WINDOW, *within))
        return f"row_number() OVER (PARTITION BY {listed} ORDER BY {self.money} DESC, {', '.join(ids)})"


def _object(side: str, names: tuple[str, ...], table: Table) -> str:
    """A JSON object of columns; of what JSON has no exact type for, the text."""
    fields = []
    for name in names:
        kind = table.columns[name].type
        column = f"{side}{name}"
        fields.append(
            f"'{name}', " + (f"CAST({column} AS text)" if isinstance(kind, (Numeric, DateTime)) else column)
        )
    return f"jsonb_build_object({', '.join(fields)})"
