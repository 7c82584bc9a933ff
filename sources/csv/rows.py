"""What makes a row of a file a sale: the rules of the sales table and of the pipelines, over whole columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from contracts.calendar import FIRST_DAY, LAST_DAY
from contracts.columns import SALE_COLUMNS

TEXTS = ("sale_id", "city", "country", "salesman_id", "salesman_name", "product")
# As in the sales table, whose columns a file has.
COLUMNS = SALE_COLUMNS
OPERATION = "operation"
# What two rows of one sale have to share to say the same.
CONTENT = COLUMNS[1:]
# The cells of a file as they are read: texts, all of them.
CELLS: dict[str, Any] = dict.fromkeys((*COLUMNS, OPERATION), pl.String)
# sold_at in microseconds of the Unix epoch, amount in ten-thousandths; `takes_back` is operation REVERSAL.
SCHEMA: dict[str, Any] = (
    dict.fromkeys(COLUMNS, pl.String)
    | dict.fromkeys(("sold_at", "quantity", "amount"), pl.Int64)
    | {"line": pl.Int64, "takes_back": pl.Boolean}
)
# The limits of the pipelines, which would refuse the event.
MOST_KEY_BYTES = 256
MOST_SALE_ID_BYTES = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_INT_LIMIT = 1 << 31
# Digits are spelled out: to polars \d is any script's, which its casts do not read.
_MOMENT = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,6}))?)?"
    r" ?(?:Z|z|([+-])(0[0-9]|1[0-5])(?::?([0-5][0-9]))?)?$"
)


def _micros(day: object) -> int:
    return (datetime.fromisoformat(f"{day}T00:00:00+00:00") - EPOCH) // MICROSECOND


@dataclass(frozen=True)
class Checked:
    """`good` as SCHEMA has it; the places of the others with `column NAME …`, one for each column that is wrong."""

    good: pl.DataFrame
    refused: list[tuple[int, list[str]]]


def check(texts: pl.DataFrame, decimal_comma: bool) -> Checked:
    """Texts of COLUMNS, perhaps OPERATION, and `line` → values."""
    if OPERATION not in texts.columns:
        texts = texts.with_columns(pl.lit("").alias(OPERATION))
    frame = _values(texts, decimal_comma)
    # Short-lived names: a rule is true for what it lets pass; null, from what could not be read, is no.
    rules = _rules(decimal_comma)
    verdicts = frame.select(rule.fill_null(False).alias(str(n)) for n, (_, rule) in enumerate(rules))
    sound = verdicts.select(pl.all_horizontal(pl.all())).to_series()
    good = frame.filter(sound) if not sound.all() else frame
    refused: list[tuple[int, list[str]]] = []
    if good.height < frame.height:
        failed = verdicts.with_row_index("row").filter(~sound)
        for row, *passed in failed.iter_rows():
            faults: dict[str, str] = {}
            for ((column, text), _), ok in zip(rules, passed, strict=True):
                if not ok:
                    # Of a column the first: what is no number has no digits to count either.
                    faults.setdefault(column, text)
            refused.append((row, [f"column {column}: {text}" for column, text in faults.items()]))
    return Checked(good.select(list(SCHEMA)), refused)


def _values(texts: pl.DataFrame, decimal_comma: bool) -> pl.DataFrame:
    operation = pl.col(OPERATION).str.strip_chars()
    frame = texts.with_columns(
        operation.alias(OPERATION),
        (operation == "REVERSAL").alias("takes_back"),
        *(pl.col(name).str.strip_chars() for name in ("sold_at", "quantity", "amount", "currency")),
    )
    if decimal_comma:
        # A point would now be a thousand's to some and a decimal's to others: it is neither.
        amount = pl.col("amount").str.replace_all(".", "?", literal=True).str.replace(",", ".", literal=True)
        frame = frame.with_columns(amount)
    parts = pl.col("amount").str.extract_groups(r"^([+-]?)0*([0-9]*)(?:\.([0-9]+?)0*)?$")
    return (
        frame.with_columns(
            _moment(pl.col("sold_at")).alias("sold_at"),
            pl.when(pl.col("quantity").str.contains(r"^[+-]?[0-9]+$"))
            .then(pl.col("quantity").str.strip_prefix("+").cast(pl.Int64, strict=False))
            .alias("quantity"),
            pl.col("amount").str.contains(r"^[+-]?[0-9]+(\.[0-9]+)?$").alias("is_number"),
            parts.struct[0].alias("sign"),
            parts.struct[1].fill_null("").alias("whole"),
            parts.struct[2].fill_null("").alias("decimals"),
        )
        .with_columns(
            pl.when(pl.col("whole").str.len_bytes() <= 14, pl.col("decimals").str.len_bytes() <= 4)
            .then((pl.col("whole") + pl.col("decimals").str.pad_end(4, "0")).cast(pl.Int64, strict=False))
            .alias("amount")
        )
        .with_columns(pl.when(pl.col("sign") == "-").then(-pl.col("amount")).otherwise(pl.col("amount")))
        .with_columns(
            # What takes back needs no more than the sale's id.
            pl.when(pl.col("takes_back")).then(0).otherwise(pl.col(name)).alias(name)
            for name in ("sold_at", "quantity", "amount")
        )
    )


def _moment(text: pl.Expr) -> pl.Expr:
    """Microseconds of the Unix epoch; null for what is no time. Without an offset it is UTC."""
    part = text.str.extract_groups(_MOMENT).struct
    whole = pl.concat_str(
        part[0], pl.lit(" "), part[1], pl.lit(":"), part[2], pl.lit(":"), part[3].fill_null("00")
    )
    at = whole.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).dt.epoch("us")
    fraction = part[4].fill_null("").str.pad_end(6, "0").cast(pl.Int64, strict=False)
    hours, minutes = (part[n].fill_null("0").cast(pl.Int64, strict=False) for n in (6, 7))
    minutes = hours * 60 + minutes
    return at + fraction - pl.when(part[5] == "-").then(-minutes).otherwise(minutes) * 60_000_000


def _rules(decimal_comma: bool) -> list[tuple[tuple[str, str], pl.Expr]]:
    """In the order in which they are asked; the first that is not met is the reason of a dead letter."""
    is_sale = ~pl.col("takes_back")
    amount = "12,50" if decimal_comma else "12.50"
    rules = [
        (("operation", "is neither SALE nor REVERSAL"), pl.col(OPERATION).is_in(["", "SALE", "REVERSAL"])),
        *_text("sale_id", MOST_SALE_ID_BYTES),
    ]
    own = [
        (("sold_at", "is no time like 2026-01-31T23:59:59.5+01:00"), pl.col("sold_at").is_not_null()),
        (
            ("sold_at", f"is not between {FIRST_DAY} and {LAST_DAY}"),
            pl.col("sold_at").is_between(_micros(FIRST_DAY), _micros(LAST_DAY), closed="left"),
        ),
        *(rule for name in ("city", "country", "salesman_id") for rule in _text(name, MOST_KEY_BYTES)),
        (("quantity", "is no whole number"), pl.col("quantity").is_not_null()),
        (
            ("quantity", "is out of the range of a 32-bit integer"),
            pl.col("quantity").is_between(-_INT_LIMIT, _INT_LIMIT - 1),
        ),
        (("amount", f"is no number like {amount}"), pl.col("is_number")),
        (("amount", "has more than 14 digits before the point"), pl.col("whole").str.len_bytes() <= 14),
        (("amount", "has more than 4 decimals"), pl.col("decimals").str.len_bytes() <= 4),
        (("amount", f"is no number like {amount}"), pl.col("amount").is_not_null()),
        (("currency", "is not three capital letters"), pl.col("currency").str.contains("^[A-Z]{3}$")),
    ]
    return rules + [(reason, ~is_sale | rule.fill_null(False)) for reason, rule in own]


def _text(column: str, most: int) -> list[tuple[tuple[str, str], pl.Expr]]:
    length = pl.col(column).str.len_bytes()
    return [((column, "is empty"), length > 0), ((column, f"is longer than {most} bytes"), length <= most)]
