"""Avro values ↔ columns, a block at a time: nothing is done once per record in Python.

The values of a poll are joined as they are into one Avro container in memory, whose writer schema begins with a `fixed`
field that covers what stands before each record. polars decodes the container into columns.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import polars as pl

_SYNC = os.urandom(16)

T = TypeVar("T")


def zigzag(number: int) -> bytes:
    """An Avro long."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_zigzag(value: bytes, at: int) -> tuple[int, int]:
    """The Avro long at a position, and the position behind it. Raises IndexError where the bytes end."""
    number = shift = 0
    while True:
        byte = value[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7


class Records:
    """Concatenated Avro records of one schema, as columns; timestamps are 64-bit microseconds.

    The container's header is encoded once: a poll of a few events is read in a fraction of a millisecond, and every
    operation on a frame costs that much again.
    """

    def __init__(self, schema: Any) -> None:
        # polars refuses defaults, which do not affect the layout of the bytes.
        plain = schema | {
            "fields": [{"name": f["name"], "type": _plain(f["type"])} for f in schema["fields"]]
        }
        text = json.dumps(plain).encode()
        meta = zigzag(2)
        for name, value in ((b"avro.schema", text), (b"avro.codec", b"null")):
            meta += zigzag(len(name)) + name + zigzag(len(value)) + value
        self._head = b"Obj\x01" + meta + zigzag(0) + _SYNC

    def read(self, count: int, body: bytes, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The records as columns. Raises PolarsError where the bytes are no such records."""
        block = b"".join((self._head, zigzag(count), zigzag(len(body)), body, _SYNC))
        return pl.read_avro(io.BytesIO(block), columns=None if columns is None else list(columns))


def _plain(avro: Any) -> Any:
    """The type with every timestamp as the long that it is."""
    if isinstance(avro, list):
        return [_plain(branch) for branch in avro]
    if not isinstance(avro, dict):
        return avro
    if str(avro.get("logicalType", "")).startswith("timestamp-"):
        return avro["type"]
    if "fields" in avro:
        return avro | {"fields": [f | {"type": _plain(f["type"])} for f in avro["fields"]]}
    return avro | {name: _plain(avro[name]) for name in ("items", "values") if name in avro}


def attempt(read: Callable[[], T]) -> T | BaseException:
    """The result of `read`, or what it raises: foreign bytes and schemas may raise anything.

    A panic of polars is no Exception, so BaseException is caught, except for what the bytes cannot cause: the process
    is to end, or has no memory.
    """
    try:
        return read()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        return error


# Ends each record of an encoded frame, so that the block can be cut into records by one `split`.
_END = os.urandom(16)
_END_ENCODED = zigzag(1) + zigzag(len(_END)) + _END


def encode_rows(frame: pl.DataFrame) -> list[bytes]:
    """Each row as an Avro record of its own, fields all `["null", type]`."""
    if frame.is_empty():
        return []
    # Columns side by side, not an operation on the frame: see Records.
    columns = [_writable(column) for column in frame.get_columns()]
    end = pl.Series("_end", [_END] * frame.height, dtype=pl.Binary)
    out = io.BytesIO()
    pl.DataFrame([*columns, end]).write_avro(out, compression="uncompressed", name="row")
    return _body_of(out.getvalue()).split(_END_ENCODED)[:-1]


def _writable(column: pl.Series) -> pl.Series:
    return _signed_bytes(column) if isinstance(column.dtype, pl.Decimal) else column


def _signed_bytes(decimals: pl.Series) -> pl.Series:
    """Decimals as Avro has them: two's complement, big-endian.

    polars writes no sign byte before a positive number whose first bit is set, which reads as a negative one.
    """
    return pl.Series(
        decimals.name,
        [
            None if number is None else number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
            for number in decimals.to_physical().to_list()
        ],
        dtype=pl.Binary,
    )


def _body_of(written: bytes) -> bytes:
    """The records of a container that polars wrote, without its head, block sizes and sync marks."""
    at = 4
    count, at = read_zigzag(written, at)
    while count:
        for _ in range(2 * count):
            size, at = read_zigzag(written, at)
            at += size
        count, at = read_zigzag(written, at)
    at += 16
    bodies = []
    while at < len(written):
        _, at = read_zigzag(written, at)
        size, at = read_zigzag(written, at)
        bodies.append(written[at : at + size])
        at += size + 16
    return b"".join(bodies)
