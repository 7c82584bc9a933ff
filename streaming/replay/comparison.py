"""The SQL that compares the results of two generations, group by group.

A group whose count is 0 is hidden everywhere, so it counts as absent. Times of writing and restatement, and apply
numbers, are not part of the result.
"""

from __future__ import annotations

from sqlalchemy import DateTime, Numeric, Table, TextClause, text

from contracts.differences import WINDOW, Shape

# The columns within which a table is ranked, and those that break ties: as in the views and the API.
_RANKED = {
    "city_totals": (("currency",), ("country", "city")),
    "salesman_totals": (("country", "currency"), ("salesman_id",)),
}


def totals(shape: Shape) -> TextClause:
    """Count and total of the groups that a generation shows, by currency."""
    return text(
        f"SELECT currency, count(*) AS groups, CAST(sum({shape.money}) AS text) AS total FROM {shape.table.name} "
        "WHERE generation = :generation AND sales_count <> 0 GROUP BY currency ORDER BY currency"
    )


def compare(shape: Shape) -> TextClause:
    """Stores every group that only one of two generations shows, or that they show differently.

    A full join by key; values are compared as columns, so money exactly. What is stored has
    money and times as text: JSON's numbers are not exact in every reader.
    """
    key = (*(WINDOW if shape.windowed else ()), *shape.group)
    window = ", ".join(WINDOW) if shape.windowed else "NULL, NULL"
    before, after = (", ".join(f"{side}.{name}" for name in shape.values) for side in "ba")
    return text(
        f"WITH b AS ({_side(shape, 'base')}), a AS ({_side(shape, 'generation')}) "
        "INSERT INTO difference_rows "
        "(difference, window_start, window_end, grp, kind, before, after, rank_before, rank_after) "
        f"SELECT :difference, {window}, {_object('', shape.group, shape.table)}, "
        "CASE WHEN b.sales_count IS NULL THEN 'added' WHEN a.sales_count IS NULL THEN 'removed' "
        "ELSE 'changed' END, "
        f"CASE WHEN b.sales_count IS NOT NULL THEN {_object('b.', shape.values, shape.table)} END, "
        f"CASE WHEN a.sales_count IS NOT NULL THEN {_object('a.', shape.values, shape.table)} END, "
        "b.rank, a.rank "
        f"FROM b FULL JOIN a USING ({', '.join(key)}) "
        f"WHERE ROW({before}) IS DISTINCT FROM ROW({after})"
    )


def is_any_outside(shape: Shape) -> TextClause:
    """Whether anything differs in windows before `range_start` or from `range_end` on."""
    key = ", ".join((*WINDOW, *shape.group))
    columns = ", ".join((*WINDOW, *shape.group, *shape.values))
    b, a = (
        f"SELECT {columns} FROM {shape.table.name} WHERE generation = :{side} AND sales_count <> 0 "
        "AND (window_start < :range_start OR window_start >= :range_end)"
        for side in ("base", "generation")
    )
    before, after = (", ".join(f"{side}.{name}" for name in shape.values) for side in "ba")
    return text(
        f"SELECT EXISTS (SELECT FROM ({b}) AS b FULL JOIN ({a}) AS a USING ({key}) "
        f"WHERE ROW({before}) IS DISTINCT FROM ROW({after}))"
    )


def _side(shape: Shape, generation: str) -> str:
    columns = ", ".join(
        (*(WINDOW if shape.windowed else ()), *shape.group, *shape.values, f"{_rank(shape)} AS rank")
    )
    return f"SELECT {columns} FROM {shape.table.name} WHERE generation = :{generation} AND sales_count <> 0"


def _rank(shape: Shape) -> str:
    if shape.table.name not in _RANKED:
        return "CAST(NULL AS bigint)"
    within, ids = _RANKED[shape.table.name]
    listed = ", ".join((*WINDOW, *within))
    return f"row_number() OVER (PARTITION BY {listed} ORDER BY {shape.money} DESC, {', '.join(ids)})"


def _object(side: str, names: tuple[str, ...], table: Table) -> str:
    """A JSON object of columns; types that JSON does not hold exactly as text."""
    fields = []
    for name in names:
        kind = table.columns[name].type
        column = f"{side}{name}"
        fields.append(
            f"'{name}', " + (f"CAST({column} AS text)" if isinstance(kind, (Numeric, DateTime)) else column)
        )
    return f"jsonb_build_object({', '.join(fields)})"
