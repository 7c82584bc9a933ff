"""A row of the sales table, its values in PostgreSQL's binary format → a sale event in Avro.

Written for speed: no Decimal, no datetime, no dict per row. The unit test compares it with a generic Avro reader.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from itertools import islice
from operator import itemgetter
from typing import Any

from contracts import texts
from contracts.columns import SALE_COLUMNS
from contracts.times import EPOCH
from kafka_client import avro
from kafka_client.registry import header
from sources.postgres.pgoutput import EPOCH_MICROS

# The columns that capture needs, in the order in which a row is handed around.
COLUMNS = SALE_COLUMNS
# A row's values in that order, as they were sent; None is NULL.
Values = Sequence[bytes | None]
# An event before encoding: whether it is a reversal, and its row.
ChangeEvent = tuple[bool, Values]

_MICROSECOND = timedelta(microseconds=1)
# timestamptz reaches further than Python's and Avro's readers, and has infinities.
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // _MICROSECOND
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // _MICROSECOND
_INFINITE = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}
# An amount is decimal(18, 4); PostgreSQL's digits are base 10,000, so four decimals are one digit.
_LIMIT = 10**18
# Every digit in front of the point of an amount below the limit has a weight below this.
_WEIGHT = 4
# Rows whose texts are checked together; if one is not plain, those of the run are read one by one.
RUN_ROWS = 128
# A record's value and its key, which is the sale_id once more. Kafka's clients send records of 1,000,000 bytes by
# default, framing included; what an event adds to its row is below 100 bytes.
MAX_BYTES = 900_000
# What a dead letter shows of a row is for people …
SHOWN_BYTES = 10_000
# … so of a larger one every value is cut, to what fits even if each character is an escape of six bytes.
_SHOWN_CHARACTERS = 150

# A quantity, whatever integer type its column has: what the files' rows are held to as well.
_QUANTITIES = range(-(1 << 31), 1 << 31)

_i64 = struct.Struct(">q").unpack
_i32 = struct.Struct(">i").unpack
_numeric = struct.Struct(">HhHH").unpack_from
_POSITIVE, _NEGATIVE = 0x0000, 0x4000
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}


class Inexpressible(ValueError):
    """A value that an event cannot hold; the message has the column and the reason."""


@dataclass(frozen=True)
class Dead:
    """A change that cannot become an event: its place among the others, and why."""

    index: int
    event: ChangeEvent
    reason: str


class Encoder:
    """Encodes rows of at most `most` bytes as events; one writer schema, one source."""

    def __init__(self, schema_id: int, source: str, most: int = MAX_BYTES) -> None:
        self._most = most
        self._head = header(schema_id) + avro.string(source.encode())

    def encode(
        self,
        events: Iterable[ChangeEvent],
        recorded_at: int | None,
        seq: int,
        records: list[tuple[bytes, bytes]],
    ) -> tuple[int, list[Dead]]:
        """Append key and value of each event to `records`; returns the next seq and what cannot be an event.

        `recorded_at` is microseconds of the Unix epoch, or None for each row's own `sold_at`. The reversal
        and the sale of a correction hold the same values, so both are taken or both are dead.
        """
        most, head = self._most, self._head
        lengths, append = avro.LENGTHS.__getitem__, records.append
        recorded = None if recorded_at is None else avro.long(recorded_at)
        dead: list[Dead] = []
        left, first = iter(events), 0
        while run := list(islice(left, RUN_ROWS)):
            is_plain = _are_plain(run)
            for index, (reversal, values) in enumerate(run, first):
                try:
                    row = values if is_plain else _normal(values)
                    try:
                        value = _event(head + avro.long(seq), reversal, row, recorded, lengths)
                    except IndexError:
                        value = _event(head + avro.long(seq), reversal, row, recorded, avro.long)
                    # The row's size, not the event's: a sale and its reversal are judged alike. An event is larger
                    # than its row, so of a small one nothing need be added up.
                    if len(value) > most // 2 and sum(map(len, row)) + len(row[0]) > most:  # type: ignore[arg-type]
                        raise Inexpressible(f"the row is larger than {most} bytes")
                except (Inexpressible, TypeError, AttributeError) as error:
                    dead.append(Dead(index, (reversal, values), _reason(error, values)))
                    continue
                append((row[0], value))  # type: ignore[arg-type]
                seq += 1
            first += len(run)
        return seq, dead


def _are_plain(run: Iterable[ChangeEvent]) -> bool:
    """Whether all texts of these rows are in their normal form already."""
    columns: list[bytes] = []
    for _, values in run:
        columns += _texts(values)
    try:
        return texts.are_plain(b"|".join(columns))
    except TypeError:
        # A NULL is reported when its row is read.
        return False


@texts.kept
def _name(data: bytes) -> bytes:
    return texts.visible(data.decode()).encode()


@texts.kept
def _description(data: bytes) -> bytes:
    return texts.description(data.decode()).encode()


# By the place of a column in a row, how its text is read.
_READ = {
    COLUMNS.index(column): _description if column in ("salesman_name", "product") else _name
    for column in COLUMNS
    if column not in ("sold_at", "quantity", "amount")
}
_texts: Callable[[Values], tuple[Any, ...]] = itemgetter(*_READ)


def _normal(values: Values) -> Values:
    """The row with its texts by the one rule for texts. Raises Inexpressible for one that it refuses."""
    row = list(values)
    for place, read in _READ.items():
        try:
            row[place] = read(values[place])  # type: ignore[arg-type]
        except texts.Refused as error:
            raise Inexpressible(f"{COLUMNS[place]} {error}") from error
    return row


_OPERATIONS = (avro.string(b"SALE"), avro.string(b"REVERSAL"))


def _event(
    head: bytes, reversal: bool, values: Any, recorded: bytes | None, prefix: Callable[[int], bytes]
) -> bytes:
    """One event. A NULL raises TypeError or AttributeError: a check beforehand would cost every row."""
    sale_id, sold, city, country, salesman_id, salesman_name, product, quantity, amount, currency = values
    sold_at = _i64(sold)[0] + EPOCH_MICROS
    if not _FIRST <= sold_at < _LAST:
        raise Inexpressible("sold_at is outside of the years 1 to 9999")
    sold_bytes = avro.long(sold_at)
    money = unscaled(amount)
    # An int4 is the rule, and costs no check this way.
    try:
        count = _i32(quantity)[0]
    except struct.error:
        count = _integer(quantity)
    if reversal:
        money, count = -money, -count
    return b"".join(
        (
            head,
            prefix(len(sale_id)), sale_id,
            _OPERATIONS[reversal], sold_bytes, recorded or sold_bytes,
            prefix(len(city)), city,
            prefix(len(country)), country,
            prefix(len(salesman_id)), salesman_id,
            prefix(len(salesman_name)), salesman_name,
            prefix(len(product)), product,
            avro.long(count), avro.decimal(money),
            prefix(len(currency)), currency,
        )
    )  # fmt: skip


def _integer(data: bytes) -> int:
    """A quantity of a smallint or bigint column. Raises Inexpressible for what does not fit."""
    value = int.from_bytes(data, "big", signed=True)
    if value not in _QUANTITIES:
        raise Inexpressible(f"quantity is {value}, which is out of the range of a 32-bit integer")
    return value


def unscaled(data: bytes) -> int:
    """A numeric in ten-thousandths. Raises Inexpressible for what decimal(18, 4) cannot hold."""
    count, weight, sign, _ = _numeric(data)
    if count == 0 and sign in (_POSITIVE, _NEGATIVE):
        return 0
    if sign in _SPECIAL:
        raise Inexpressible(f"amount is {_SPECIAL[sign]}")
    if weight >= _WEIGHT:
        raise Inexpressible("amount has more than 14 digits before the point")
    value = 0
    for digit in struct.unpack_from(f">{count}H", data, 8):
        value = value * 10_000 + digit
    shift = weight + 2 - count
    if shift >= 0:
        value *= int(10_000**shift)
    else:
        value, rest = divmod(value, 10_000**-shift)
        if rest:
            raise Inexpressible("amount has more than 4 decimals")
    if value >= _LIMIT:
        raise Inexpressible("amount has more than 14 digits before the point")
    return -value if sign == _NEGATIVE else value


def _reason(error: Exception, values: Values) -> str:
    if isinstance(error, Inexpressible):
        return str(error)
    null = [name for name, value in zip(COLUMNS, values, strict=True) if value is None]
    if not null:
        raise error
    return f"{', '.join(null)} is null"


def as_json(values: Values) -> bytes:
    """A row for people: what a dead letter shows, at most SHOWN_BYTES."""
    readers: dict[str, Callable[[bytes], object]] = {
        "sold_at": _timestamp_text,
        "quantity": lambda data: int.from_bytes(data, "big", signed=True),
        "amount": _numeric_text,
    }
    shown = {
        name: None if value is None else readers.get(name, bytes.decode)(value)
        for name, value in zip(COLUMNS, values, strict=True)
    }
    whole = json.dumps(shown, ensure_ascii=False).encode()
    if len(whole) <= SHOWN_BYTES:
        return whole
    cut = {name: _cut(value) if isinstance(value, str) else value for name, value in shown.items()}
    return json.dumps(cut, ensure_ascii=False).encode()


def _cut(text: str) -> str:
    rest = len(text) - _SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:_SHOWN_CHARACTERS]}… and {rest} characters more"


def _timestamp_text(data: bytes) -> str:
    (micros,) = _i64(data)
    if micros in _INFINITE:
        return _INFINITE[micros]
    try:
        return (EPOCH + timedelta(microseconds=micros + EPOCH_MICROS)).isoformat()
    except OverflowError:
        return f"{micros} microseconds from 2000-01-01"


def _numeric_text(data: bytes) -> str:
    count, weight, sign, scale = _numeric(data)
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    exact = Context(prec=200_000)
    value = exact.create_decimal(0)
    for digit in struct.unpack_from(f">{count}H", data, 8):
        value = exact.add(exact.multiply(value, Decimal(10_000)), Decimal(digit))
    value = exact.quantize(exact.scaleb(value, 4 * (weight + 1 - count)), Decimal(1).scaleb(-scale))
    return format(exact.minus(value) if sign == _NEGATIVE else value, "f")
