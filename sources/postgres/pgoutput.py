"""The messages of PostgreSQL's `pgoutput`, protocol version 1, with values in binary format. Pure.

Only the rows are read once per row, so they are plain lists; everything else comes once per transaction or less.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE, TYPE, ORIGIN = b"BCRIUDTYO"
# Seconds from the Unix epoch to PostgreSQL's, 2000-01-01.
EPOCH_MICROS = 946_684_800 * 1_000_000

_NULL, _UNCHANGED, _BINARY = b"nub"
_NEW, _OLD, _KEY = b"NOK"
_u16 = struct.Struct(">H").unpack_from
_u32 = struct.Struct(">I").unpack_from
_begin = struct.Struct(">QqI").unpack_from
_commit = struct.Struct(">BQQq").unpack_from
_column = struct.Struct(">Ii").unpack_from
_value = struct.Struct(">BI").unpack_from
_VALUE_BYTES = 5


class ProtocolError(ValueError):
    """Bytes that are no message of the requested protocol."""


class Unchanged:
    """A value that was not sent again, because it is unchanged and stored out of line."""


UNCHANGED = Unchanged()
Value = bytes | None | Unchanged
Row = list[Value]


class Begin(NamedTuple):
    """A transaction begins; `lsn` is that of its commit, times are microseconds of the Unix epoch."""

    lsn: int
    committed_at: int
    xid: int


class Commit(NamedTuple):
    """A transaction is whole; the next one's commit is at `end_lsn` or later."""

    lsn: int
    end_lsn: int
    committed_at: int


@dataclass(frozen=True)
class Column:
    name: str
    type_oid: int


@dataclass(frozen=True)
class Relation:
    """The columns of a table from here on. `identity` is `f` for REPLICA IDENTITY FULL."""

    relid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Change(NamedTuple):
    """A row's change: a new row, an old one, or both. `old_is_key`: only the key of the old row is there."""

    old: Row | None
    new: Row | None
    old_is_key: bool


def begin(data: bytes) -> Begin:
    lsn, at, xid = _begin(data, 1)
    return Begin(lsn, at + EPOCH_MICROS, xid)


def commit(data: bytes) -> Commit:
    _, lsn, end_lsn, at = _commit(data, 1)
    return Commit(lsn, end_lsn, at + EPOCH_MICROS)


def relation(data: bytes) -> Relation:
    (relid,) = _u32(data, 1)
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _u16(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        column, at = _text(data, at + 1)
        type_oid, _modifier = _column(data, at)
        at += 8
        columns.append(Column(column, type_oid))
    return Relation(relid, schema, name, identity, tuple(columns))


def relid(data: bytes) -> int:
    """The table of an INSERT, UPDATE or DELETE."""
    return int(_u32(data, 1)[0])


def inserted(data: bytes) -> Row:
    """The row of an INSERT; a function of its own beside `change`, because most changes are INSERTs."""
    if data[5] != _NEW:
        raise ProtocolError(f"no INSERT begins with {data[:6].hex()}")
    return row(data, 6)[0]


def change(data: bytes) -> Change:
    """An INSERT, UPDATE or DELETE."""
    kind = data[0]
    mark = data[5]
    if kind == INSERT:
        return Change(None, inserted(data), False)
    if kind == UPDATE and mark == _NEW:
        return Change(None, row(data, 6)[0], False)
    if kind == UPDATE and mark in (_OLD, _KEY):
        old, at = row(data, 6)
        if data[at] != _NEW:
            raise ProtocolError(f"an update's new row begins with {data[at]:#x}")
        return Change(old, row(data, at + 1)[0], mark == _KEY)
    if kind == DELETE and mark in (_OLD, _KEY):
        return Change(row(data, 6)[0], None, mark == _KEY)
    raise ProtocolError(f"no row change begins with {data[:6].hex()}")


def truncated(data: bytes) -> tuple[int, ...]:
    """The tables that a TRUNCATE empties."""
    (count,) = _u32(data, 1)
    return struct.unpack_from(f">{count}I", data, 6)


def row(data: bytes, at: int) -> tuple[Row, int]:
    """The values of a row and where it ends. Values stay as they were sent: decoding them is the reader's."""
    (count,) = _u16(data, at)
    start = at + 2
    at = start
    values: Row = []
    append = values.append
    try:
        for _ in range(count):
            # Kind and length at once; a value without a length has only the first, hence the way out at the end.
            kind, length = _value(data, at)
            if kind == _BINARY:
                at += 5
                end = at + length
                append(data[at:end])
                at = end
            else:
                append(_absent(kind))
                at += 1
    except struct.error:
        return _row_at_the_end(data, start, count)
    if at > len(data):
        raise ProtocolError("a row ends after its message")
    return values, at


def _row_at_the_end(data: bytes, at: int, count: int) -> tuple[Row, int]:
    """The same for a row whose last values have no length and which ends with its message."""
    values: Row = []
    for _ in range(count):
        if at >= len(data):
            raise ProtocolError("a row ends after its message")
        if data[at] == _BINARY and at + _VALUE_BYTES <= len(data):
            start = at + _VALUE_BYTES
            at = start + _u32(data, at + 1)[0]
            values.append(data[start:at])
        else:
            values.append(_absent(data[at]))
            at += 1
    return values, at


def _absent(kind: int) -> Unchanged | None:
    if kind == _NULL:
        return None
    if kind == _UNCHANGED:
        return UNCHANGED
    raise ProtocolError(f"a value of kind {chr(kind)!r}, where binary was requested")


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
