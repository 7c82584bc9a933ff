"""Messages of pgoutput and values in PostgreSQL's binary format, built as the server builds them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sources.postgres.rows import COLUMNS

TYPES = dict.fromkeys(COLUMNS, 25) | {"sold_at": 1184, "quantity": 23, "amount": 1700, "currency": 1042}
RELID = 16_400
UNCHANGED = object()


class Catalog:
    """A database whose table is as the stream describes it; counts the reads."""

    def __init__(self, order: Sequence[str] = tuple(TYPES), *former: Sequence[str]) -> None:
        self.order = order
        self.former = former
        self.looked: list[int] = []

    def look_behind(self, xid: int) -> Sequence[Sequence[str]]:
        self.looked.append(xid)
        return [self.order, *self.former]

    def type_name(self, oid: int) -> str:
        return f"type {oid}"


def timestamp(at: datetime) -> bytes:
    return struct.pack(">q", (at - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def numeric(value: Decimal, scale: int = 4) -> bytes:
    """As numeric_send: digits of base 10,000 without zeros at either end."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)) + "0" * max(exponent, 0)
    point = len(text) + min(exponent, 0)
    whole, fraction = (text[:point] if point > 0 else ""), text[max(point, 0) :].rjust(-min(exponent, 0), "0")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[i : i + 4]) for i in range(0, len(whole + fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    return struct.pack(
        f">HhHH{len(groups)}H",
        len(groups),
        weight if groups else 0,
        0x4000 if sign and groups else 0,
        scale,
        *groups,
    )


def sale(sale_id: str = "a", amount: str | bytes | None = "1.5", **other: bytes | None) -> list[bytes | None]:
    """A row of the sales table in the order of COLUMNS."""
    number = numeric(Decimal(amount)) if isinstance(amount, str) else amount
    row: dict[str, bytes | None] = {
        "sale_id": sale_id.encode(), "sold_at": timestamp(datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)),
        "city": "Zürich".encode(), "country": b"CH", "salesman_id": b"s1", "salesman_name": b"Anna",
        "product": b"TV", "quantity": struct.pack(">i", 2), "amount": number, "currency": b"CHF",
    }  # fmt: skip
    return list((row | other).values())


def relation(
    relid: int = RELID, name: str = "sales", columns: dict[str, int] | None = None, identity: str = "f"
) -> bytes:
    columns = TYPES if columns is None else columns
    out = b"R" + struct.pack(">I", relid) + b"public\0" + name.encode() + b"\0" + identity.encode()
    out += struct.pack(">H", len(columns))
    for column, oid in columns.items():
        out += b"\1" + column.encode() + b"\0" + struct.pack(">Ii", oid, -1)
    return out


def begin(lsn: int, at: datetime = datetime(2026, 1, 1, tzinfo=UTC), xid: int = 7) -> bytes:
    return b"B" + struct.pack(">Q", lsn) + timestamp(at) + struct.pack(">I", xid)


def commit(lsn: int, end_lsn: int, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> bytes:
    return b"C\0" + struct.pack(">QQ", lsn, end_lsn) + timestamp(at)


def row(values: list[object]) -> bytes:
    out = struct.pack(">H", len(values))
    for value in values:
        if value is None:
            out += b"n"
        elif value is UNCHANGED:
            out += b"u"
        else:
            assert isinstance(value, bytes)
            out += b"b" + struct.pack(">I", len(value)) + value
    return out


def insert(values: list[object], relid: int = RELID) -> bytes:
    return b"I" + struct.pack(">I", relid) + b"N" + row(values)


def update(old: list[object] | None, new: list[object], mark: bytes = b"O") -> bytes:
    before = b"" if old is None else mark + row(old)
    return b"U" + struct.pack(">I", RELID) + before + b"N" + row(new)


def delete(old: list[object], mark: bytes = b"O") -> bytes:
    return b"D" + struct.pack(">I", RELID) + mark + row(old)


def truncate(*relids: int) -> bytes:
    return b"T" + struct.pack(f">IB{len(relids)}I", len(relids), 0, *relids)
