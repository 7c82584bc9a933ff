"""Avro records ↔ rows, one at a time, for the types that events, partials and totals have.

Bytes are read only if nothing about them is in doubt; anything else raises ValueError or IndexError, and what the value
is then is left to `columns`. One loop over the fields, since in Python a call costs as much as a field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kafka_client.registry import HEADER_BYTES
from streaming.engine.aggregates import Field
from streaming.engine.blocks import read_zigzag, zigzag
from streaming.engine.resolution import is_decimal

Row = dict[str, Any]

# Kinds of fields. Each begins with a long: itself, a size in bytes, or a count of items.
_LONG, _TEXT, _DECIMAL, _BYTES, _ITEMS = range(5)
_KINDS = {"long": _LONG, "string": _TEXT, "bytes": _BYTES}
_LEAST, _MOST = -(2**63), 2**63 - 1
_MOST_LONG_BYTES = 10
# As polars has it.
_MOST_DECIMAL_BYTES = 16
# Branches of `["null", type]`.
_NULL, _VALUE = zigzag(0), zigzag(1)
# Windows, names and small counts recur from group to group.
_long = lru_cache(1 << 14)(zigzag)


@dataclass(frozen=True)
class _Field:
    """`branches`: the bytes of null and of the value in the field's union; none if it has no null."""

    name: str
    kind: int
    branches: tuple[int, int] | None = None
    item: tuple[_Step, ...] = ()

    @property
    def step(self) -> _Step:
        return self.name, self.kind, self.branches, self.item


# A tuple, which is unpacked faster than attributes are read.
_Step = tuple[str, int, tuple[int, int] | None, tuple[Any, ...]]


def event_reader(
    fields: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    defaults: Row,
    ranges: Mapping[str, tuple[int, int]],
) -> Callable[[bytes], Row] | None:
    """Reads the columns of a writer's values behind their header; None for a schema that is left to `columns`.

    `defaults` are values of columns that the writer lacks; numbers outside of their `ranges` are in doubt.
    """
    read = [_event_field(field["name"], field["type"], is_read=field["name"] in columns) for field in fields]
    steps = tuple(field.step for field in read if field is not None)
    if len(steps) < len(read):
        return None
    others = [field["name"] for field in fields if field["name"] not in columns]
    bounds = [(name, *bounds) for name, bounds in ranges.items() if name not in defaults]

    def read_event(value: bytes) -> Row:
        event, end = _read(value, HEADER_BYTES, steps)
        if end != len(value):
            raise ValueError("bytes behind it")
        for name in others:
            del event[name]
        for name, least, most in bounds:
            number = event[name]
            if number is None or not least <= number <= most:
                raise ValueError("out of its range")
        if None in event.values():
            raise ValueError("null")
        return event | defaults

    return read_event


def _event_field(name: str, avro: Any, *, is_read: bool) -> _Field | None:
    branches = None
    if isinstance(avro, list):
        if len(avro) != 2 or "null" not in avro:
            return None
        null = avro.index("null")
        branches, avro = (2 * null, 2 - 2 * null), avro[1 - null]
    plain = avro.get("type") if isinstance(avro, dict) else avro
    kind = _KINDS.get(plain) if isinstance(plain, str) else None
    if kind is None:
        return None
    if not is_read:
        # Nothing is checked of a text that this pipeline does not read, as in columns.
        kind = _LONG if kind == _LONG else _BYTES
    elif is_decimal(avro):
        kind = _DECIMAL
    elif kind == _BYTES:
        return None
    return _Field(name, kind, branches)


class GroupCodec:
    """Groups, as partials and totals have them: every field is nullable."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._steps = _group_steps(fields)

    def read(self, value: bytes, at: int) -> tuple[Row, int]:
        """The group at a position, and the position behind it."""
        return _read(value, at, self._steps)

    def write(self, group: Row) -> bytes:
        parts: list[bytes] = []
        _write(group, self._steps, parts)
        return b"".join(parts)


def _group_steps(fields: Sequence[Field]) -> tuple[_Step, ...]:
    return tuple(_group_field(field).step for field in fields)


def _group_field(field: Field) -> _Field:
    branches, avro = (_NULL[0], _VALUE[0]), field.avro
    if is_decimal(avro):
        return _Field(field.name, _DECIMAL, branches)
    if isinstance(avro, dict) and avro["type"] == "array":
        _, record = avro["items"]
        item = [Field(each["name"], each["type"][1]) for each in record["fields"]]
        return _Field(field.name, _ITEMS, branches, _group_steps(item))
    return _Field(field.name, _KINDS[avro["type"] if isinstance(avro, dict) else avro], branches)


def _read(value: bytes, at: int, steps: Sequence[_Step]) -> tuple[Row, int]:
    row: Row = {}
    for name, kind, branches, item in steps:
        if branches is not None:
            branch, at = value[at], at + 1
            if branch == branches[0]:
                row[name] = None
                continue
            if branch != branches[1]:
                raise ValueError("no branch")
        number, at = value[at], at + 1
        if number < 0x80:
            number = (number >> 1) ^ -(number & 1)
        else:
            number, at = _read_long(value, at - 1)
        if kind == _LONG:
            row[name] = number
        elif kind == _ITEMS:
            row[name], at = _read_items(value, at, number, item)
        else:
            end = at + number
            if number < 0 or end > len(value):
                raise ValueError("no bytes")
            if kind == _TEXT:
                row[name] = value[at:end].decode()
            elif kind == _DECIMAL:
                if number > _MOST_DECIMAL_BYTES:
                    raise ValueError("no decimal")
                row[name] = int.from_bytes(value[at:end], "big", signed=True)
            else:
                row[name] = b""
            at = end
    return row, at


def _read_long(value: bytes, at: int) -> tuple[int, int]:
    number, end = read_zigzag(value, at)
    if end - at > _MOST_LONG_BYTES or not _LEAST <= number <= _MOST:
        raise ValueError("no long")
    return number, end


def _read_items(value: bytes, at: int, count: int, item: Sequence[_Step]) -> tuple[list[Row], int]:
    rows: list[Row] = []
    while count:
        if count < 0:
            raise ValueError("no array of ours")
        for _ in range(count):
            if value[at] != _VALUE[0]:
                raise ValueError("no item")
            row, at = _read(value, at + 1, item)
            rows.append(row)
        count, at = _read_long(value, at)
    return rows, at


def _write(row: Row, steps: Sequence[_Step], parts: list[bytes]) -> None:
    for name, kind, _, item in steps:
        value = row[name]
        if value is None:
            parts.append(_NULL)
            continue
        parts.append(_VALUE)
        if kind == _LONG:
            parts.append(_long(value))
        elif kind == _TEXT:
            encoded = value.encode()
            parts += _long(len(encoded)), encoded
        elif kind == _DECIMAL:
            # Always with room for the sign, as in columns.
            digits = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
            parts += _long(len(digits)), digits
        else:
            parts.append(_long(len(value)))
            for each in value:
                parts.append(_VALUE)
                _write(each, item, parts)
            if value:
                parts.append(zigzag(0))
