"""What makes a row of a file a sale: the rules of the sales table and of the pipelines, over whole columns.

Cells in the usual form are read in whole columns, the others cell by cell by the rules in `contracts`, which give
the same results for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from contracts import numbers, texts, times
from contracts.columns import SALE_COLUMNS
from contracts.numbers import Style
from contracts.texts import MOST_SALE_ID_BYTES, Refused

EPOCH, MICROSECOND = times.EPOCH, times.MICROSECOND
# As in the sales table, whose columns a file has.
COLUMNS = SALE_COLUMNS
OPERATION = "operation"
# What two rows of one sale have to share to be duplicates.
CONTENT = COLUMNS[1:]
# The cells of a file as they are read: texts, all of them.
CELLS: dict[str, Any] = dict.fromkeys((*COLUMNS, OPERATION), pl.String)
# sold_at in microseconds of the Unix epoch, amount in ten-thousandths; `takes_back` is operation REVERSAL.
SCHEMA: dict[str, Any] = (
    dict.fromkeys(COLUMNS, pl.String)
    | dict.fromkeys(("sold_at", "quantity", "amount"), pl.Int64)
    | {"line": pl.Int64, "takes_back": pl.Boolean}
)
OPERATIONS = ("", "SALE", "REVERSAL")
# The decimal sign that goes with a separator of columns where both are customary.
_CUSTOMARY = {",": ".", ";": ","}


def style_of(separator: str, decimal_comma: bool) -> Style:
    """How numbers are written in a file with this separator.

    Separator and decimal sign are one dialect: `,` goes with a point, `;` with a comma, and then the sign is certain.
    It is so as well behind a tab, if the setting names the comma. Elsewhere a number is refused that reads differently
    in the other dialect: `1.234` between semicolons.
    """
    sign = "," if decimal_comma else "."
    customary = _CUSTOMARY.get(separator)
    return Style(sign, is_certain=sign == customary or (customary is None and decimal_comma))


@dataclass(frozen=True)
class Checked:
    """`good` as SCHEMA has it; the places of the others with `column NAME …`, one for each column that is wrong."""

    good: pl.DataFrame
    refused: list[tuple[int, list[str]]]


# A cell's value. Raises Refused.
Read = Callable[[str], Any]


@dataclass(frozen=True)
class _Rule:
    """How a column is read: whole, where cells are written in the usual way (null: they are not), and cell by cell."""

    column: str
    usual: pl.Expr
    read: Read


def check(cells: pl.DataFrame, style: Style) -> Checked:
    """Texts of COLUMNS, perhaps OPERATION, and `line` → values."""
    if OPERATION not in cells.columns:
        cells = cells.with_columns(pl.lit("").alias(OPERATION))
    faults: dict[int, list[str]] = {}
    all_rows = pl.repeat(True, cells.height, dtype=pl.Boolean, eager=True)
    # An operation that is none is refused with the rest of its row, as a sale.
    operation = _values(cells, _OPERATION, all_rows, faults).fill_null("")
    takes_back = (operation == "REVERSAL").alias("takes_back")
    columns = [_values(cells, _SALE_ID, all_rows, faults)]
    # What takes back needs no more than the sale's id.
    columns += [_values(cells, rule, ~takes_back, faults) for rule in _rules(style)]
    good = pl.DataFrame([*columns, takes_back, cells["line"]])
    refused = sorted(faults)
    if refused:
        good = good.filter(all_rows.scatter(refused, False))
    # Of what takes back.
    good = good.with_columns(pl.col(pl.Int64).fill_null(0), pl.col(pl.String).fill_null(""))
    return Checked(good.select(list(SCHEMA)), [(row, faults[row]) for row in refused])


def _values(cells: pl.DataFrame, rule: _Rule, wanted: pl.Series, faults: dict[int, list[str]]) -> pl.Series:
    """The column's values: null where none is wanted, and where it is refused, which is noted."""
    column = cells[rule.column]
    values = cells.select(rule.usual.alias(rule.column)).to_series()
    rows = (wanted & values.is_null()).arg_true()
    if len(rows):
        known: dict[str, Any] = {}
        read: list[Any] = []
        for row, cell in zip(rows.to_list(), column.gather(rows).to_list(), strict=True):
            if cell not in known:
                known[cell] = _read(rule.read, cell)
            if isinstance(known[cell], Refused):
                faults.setdefault(row, []).append(f"column {rule.column}: {known[cell]}")
                read.append(None)
            else:
                read.append(known[cell])
        values = values.scatter(rows, pl.Series(read, dtype=values.dtype))
    return values


def _read(read: Read, cell: str) -> Any:
    try:
        return read(cell)
    except Refused as error:
        return error


def _rules(style: Style) -> list[_Rule]:
    """In the order of the columns, which is that of the reasons of a row."""
    return [
        _Rule("sold_at", _moment(pl.col("sold_at")), times.micros),
        *(
            _Rule(name, _plain(name, texts.MOST_NAME_BYTES), texts.name)
            for name in ("city", "country", "salesman_id")
        ),
        *(_Rule(name, _plain(name), texts.description) for name in ("salesman_name", "product")),
        _Rule("quantity", _quantity(pl.col("quantity")), partial(numbers.quantity, style=style)),
        _Rule("amount", _amount(pl.col("amount"), style), partial(numbers.amount, style=style)),
        _Rule("currency", _where(pl.col("currency"), "^[A-Z]{3}$"), texts.currency),
    ]


def _where(column: pl.Expr, pattern: str) -> pl.Expr:
    return pl.when(column.str.contains(pattern)).then(column)


def _plain(name: str, most: int | None = None) -> pl.Expr:
    column = _where(pl.col(name), texts.PLAIN)
    return column if most is None else pl.when(pl.col(name).str.len_bytes() <= most).then(column)


def _operation(cell: str) -> str:
    word = texts.normal(cell)
    if word not in OPERATIONS:
        raise Refused("is neither SALE nor REVERSAL")
    return word


_OPERATION = _Rule(
    OPERATION, pl.when(pl.col(OPERATION).is_in(OPERATIONS)).then(pl.col(OPERATION)), _operation
)
_SALE_ID = _Rule(
    "sale_id", _plain("sale_id", MOST_SALE_ID_BYTES), partial(texts.name, most=MOST_SALE_ID_BYTES)
)


# Of what `times` reads, what most programs write: with seconds, nine digits of a fraction at most, an offset or none.
_MOMENT = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])(0[0-9]|1[0-5]):?([0-5][0-9]))?$"
)


def _moment(cell: pl.Expr) -> pl.Expr:
    """Microseconds of the Unix epoch; null for what is written otherwise, or outside of the calendars."""
    part = cell.str.extract_groups(_MOMENT).struct
    whole = pl.concat_str(part[0], pl.lit(" "), part[1])
    at = whole.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).dt.epoch("us")
    fraction = part[2].fill_null("").str.head(6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
    hours, minutes = (part[n].fill_null("0").cast(pl.Int64, strict=False) for n in (4, 5))
    minutes = hours * 60 + minutes
    value = at + fraction - pl.when(part[3] == "-").then(-minutes).otherwise(minutes) * 60_000_000
    return pl.when(value.is_between(times.FIRST_MICROS, times.BEHIND_MICROS, closed="left")).then(value)


def _quantity(cell: pl.Expr) -> pl.Expr:
    # Nine digits are in the range, whatever they are.
    return pl.when(cell.str.contains("^-?[0-9]{1,9}$")).then(cell.cast(pl.Int64, strict=False))


def _amount(cell: pl.Expr, style: Style) -> pl.Expr:
    """Ten-thousandths, where the decimal sign is certain or cannot be taken for another."""
    part = cell.str.extract_groups(rf"^(-?)([0-9]{{1,14}})(?:[{style.sign}]([0-9]{{1,4}}))?$").struct
    decimals = part[2].fill_null("")
    value = (part[1] + decimals.str.pad_end(4, "0")).cast(pl.Int64, strict=False)
    value = pl.when(part[0] == "-").then(-value).otherwise(value)
    return value if style.is_certain else pl.when(decimals.str.len_bytes() != 3).then(value)
