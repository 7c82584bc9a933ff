"""Avro records ↔ rows, one at a time, for the types that events, partials and totals have.

Bytes are read only if nothing about them is in doubt; anything else raises ValueError or IndexError, and what the value
is then is left to `columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka_client.registry import HEADER_BYTES
from streaming.engine.aggregates import Field
from streaming.engine.blocks import read_zigzag, zigzag
from streaming.engine.resolution import is_decimal

# From bytes and a position to the value there and the position behind it.
Read = Callable[[bytes, int], tuple[Any, int]]
Write = Callable[[Any], bytes]
Row = dict[str, Any]

_LEAST, _MOST = -(2**63), 2**63 - 1
_MOST_LONG_BYTES = 10
# As polars has it.
_MOST_DECIMAL_BYTES = 16
# Branches of `["null", type]`.
_NULL, _VALUE = zigzag(0), zigzag(1)


def event_reader(
    fields: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    defaults: Mapping[str, Any],
    ranges: Mapping[str, tuple[int, int]],
) -> Callable[[bytes], Row] | None:
    """Reads the columns of a writer's values behind their header; None for a schema that is left to `columns`.

    `defaults` are values of columns that the writer lacks; numbers outside of their `ranges` are in doubt.
    """
    steps = [(f["name"], _event_field(f["type"], is_read=f["name"] in columns)) for f in fields]
    if any(read is None for _, read in steps):
        return None
    known = [(name if name in columns else None, read) for name, read in steps if read is not None]
    bounds = [(name, least, most) for name, (least, most) in ranges.items() if name not in defaults]

    def read_event(value: bytes) -> Row:
        event, at = dict(defaults), HEADER_BYTES
        for name, read in known:
            found, at = read(value, at)
            if name is not None:
                event[name] = found
        if at != len(value):
            raise ValueError("bytes behind it")
        for name, least, most in bounds:
            if not least <= event[name] <= most:
                raise ValueError("out of its range")
        return event

    return read_event


def _event_field(avro: Any, *, is_read: bool) -> Read | None:
    if isinstance(avro, list):
        return _optional_field(avro, is_read=is_read)
    if is_decimal(avro):
        return _DECIMALS.get(avro["type"]) if is_read else _SKIPPED.get(avro["type"])
    kind = avro.get("type") if isinstance(avro, dict) else avro
    if not isinstance(kind, str):
        return None
    # Of a text that is not read nothing is checked, as in columns: other pipelines may read it.
    return (_READ if is_read else _SKIPPED).get(kind)


def _optional_field(branches: Sequence[Any], *, is_read: bool) -> Read | None:
    if len(branches) != 2 or "null" not in branches:
        return None
    null = branches.index("null")
    read = _event_field(branches[1 - null], is_read=is_read)
    if read is None:
        return None

    def optional(value: bytes, at: int) -> tuple[Any, int]:
        branch, at = _long(value, at)
        if branch == 1 - null:
            return read(value, at)
        if branch != null or is_read:
            raise ValueError("null, or no branch")
        return None, at

    return optional


class GroupCodec:
    """Groups, as partials and totals have them: every field is nullable."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._read = [(field.name, _group_field(field.avro)) for field in fields]
        self._write = [(field.name, _written(field.avro)) for field in fields]

    def read(self, value: bytes, at: int) -> tuple[Row, int]:
        group: Row = {}
        for name, read in self._read:
            branch, at = value[at], at + 1
            if branch == _VALUE[0]:
                group[name], at = read(value, at)
            elif branch == _NULL[0]:
                group[name] = None
            else:
                raise ValueError("no branch")
        return group, at

    def write(self, group: Mapping[str, Any]) -> bytes:
        parts: list[bytes] = []
        for name, write in self._write:
            found = group[name]
            parts += (_NULL,) if found is None else (_VALUE, write(found))
        return b"".join(parts)


def _group_field(avro: Any) -> Read:
    if is_decimal(avro):
        return _decimal
    if isinstance(avro, dict) and avro["type"] == "array":
        return _items(_item_codec(avro))
    return _READ[avro if isinstance(avro, str) else avro["type"]]


def _written(avro: Any) -> Write:
    if is_decimal(avro):
        return _write_decimal
    if isinstance(avro, dict) and avro["type"] == "array":
        return _write_items(_item_codec(avro))
    return _write_text if avro == "string" else zigzag


def _item_codec(array: Mapping[str, Any]) -> GroupCodec:
    _, record = array["items"]
    return GroupCodec([Field(field["name"], field["type"][1]) for field in record["fields"]])


def _items(codec: GroupCodec) -> Read:
    def read(value: bytes, at: int) -> tuple[list[Row], int]:
        items: list[Row] = []
        count, at = _long(value, at)
        while count:
            for _ in range(count):
                if value[at] != _VALUE[0]:
                    raise ValueError("no item")
                item, at = codec.read(value, at + 1)
                items.append(item)
            count, at = _long(value, at)
            if count < 0:
                raise ValueError("no array of ours")
        return items, at

    return read


def _write_items(codec: GroupCodec) -> Write:
    def write(items: Sequence[Mapping[str, Any]]) -> bytes:
        body = b"".join(_VALUE + codec.write(item) for item in items)
        return (zigzag(len(items)) + body if items else b"") + zigzag(0)

    return write


def _long(value: bytes, at: int) -> tuple[int, int]:
    byte = value[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    number, end = read_zigzag(value, at)
    if end - at > _MOST_LONG_BYTES or not _LEAST <= number <= _MOST:
        raise ValueError("no long")
    return number, end


def _bytes(value: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(value, at)
    end = at + size
    if size < 0 or end > len(value):
        raise ValueError("no bytes")
    return value[at:end], end


def _text(value: bytes, at: int) -> tuple[str, int]:
    text, at = _bytes(value, at)
    return text.decode(), at


def _decimal(value: bytes, at: int) -> tuple[int, int]:
    digits, at = _bytes(value, at)
    if len(digits) > _MOST_DECIMAL_BYTES:
        raise ValueError("no decimal")
    return int.from_bytes(digits, "big", signed=True), at


def _write_text(text: str) -> bytes:
    encoded = text.encode()
    return zigzag(len(encoded)) + encoded


def _write_decimal(number: int) -> bytes:
    # Always with room for the sign, as in columns.
    digits = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    return zigzag(len(digits)) + digits


_READ: dict[str, Read] = {"long": _long, "string": _text}
_SKIPPED: dict[str, Read] = {"long": _long, "string": _bytes, "bytes": _bytes}
_DECIMALS: dict[str, Read] = {"bytes": _decimal}
