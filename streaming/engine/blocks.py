"""Avro values ↔ columns, a block at a time: nothing is done once per record in Python.

The values of a poll are joined as they are into one Avro container in memory, whose writer schema begins with a `fixed`
field that covers what stands before each record. polars decodes the container into columns.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from contracts.registry import HEADER_BYTES, header, schema_id_of

# A random mark between values: a record that is longer or shorter than its schema says cannot pass as two others.
MARK = os.urandom(8)
_SYNC = os.urandom(16)
_PREFIX = "_prefix"

# Gives the parsed writer schema, None for an id that the registry does not know; raises when the registry is away.
SchemaLookup = Callable[[int], Any]


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

    What polars has to be told of the schema is written once: a poll of a few events is read in a fraction of a
    millisecond, and every operation on a frame costs that much again.
    """

    def __init__(self, schema: Any) -> None:
        # polars refuses defaults, and they say nothing of how the bytes are laid out.
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


@dataclass
class Decoded:
    """The events of a poll as columns. `row` says which value each came from; the bad ones are named beside."""

    frame: pl.DataFrame
    bad: list[tuple[int, str]] = field(default_factory=list)


# What stands before each value of a block: the mark and the registry's header.
_MARKED = {"name": _PREFIX, "type": {"type": "fixed", "name": "Prefix", "size": len(MARK) + HEADER_BYTES}}


@dataclass(frozen=True)
class _Writer:
    """What is known of a writer's schema: how to read its marked records, and which wanted columns they have."""

    name: str
    records: Records
    present: list[str]


class Decoder:
    """Values with a registry header → the columns of a reader schema that are asked for.

    Writer schemas come by id; several in one poll are several blocks. A block that does not decode, or whose marks
    are not where they belong, is halved until the bad values stand alone: a value's fate depends on itself only.
    """

    def __init__(self, reader: Any, columns: Sequence[str], lookup: SchemaLookup) -> None:
        self._columns = list(columns)
        self._lookup = lookup
        self._defaults = {f["name"]: f["default"] for f in reader["fields"] if "default" in f}
        self._dtypes = self._reader_types(reader)
        self._writers: dict[int, _Writer] = {}

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Columns of all values that are sound, in their order, and the reason for each that is not."""
        if values:
            whole = self._block(values)
            if whole is not None:
                return Decoded(whole.with_row_index("row"))
        return self._by_schema(values)

    def _by_schema(self, values: Sequence[bytes | None]) -> Decoded:
        bad: list[tuple[int, str]] = []
        rows_of: dict[int, list[int]] = {}
        for row, value in enumerate(values):
            try:
                schema_id = schema_id_of(value or b"")
                if self._writer(schema_id) is None:
                    raise ValueError(f"schema id {schema_id} is unknown to the registry")
                rows_of.setdefault(schema_id, []).append(row)
            except ValueError as error:
                bad.append((row, str(error)))
        frames: list[pl.DataFrame] = []
        for rows in rows_of.values():
            self._halve(values, rows, frames, bad)
        frame = pl.concat(frames).sort("row") if frames else self._empty()
        return Decoded(frame, sorted(bad))

    def _halve(
        self,
        values: Sequence[bytes | None],
        rows: list[int],
        frames: list[pl.DataFrame],
        bad: list[tuple[int, str]],
    ) -> None:
        chosen = [values[row] or b"" for row in rows]
        frame = self._block(chosen)
        if frame is not None:
            frames.append(
                frame.with_columns(row=pl.Series(rows, dtype=pl.get_index_type())).select(
                    "row", *self._columns
                )
            )
        elif len(rows) == 1:
            bad.append((rows[0], self._reason(chosen[0])))
        else:
            middle = len(rows) // 2
            self._halve(values, rows[:middle], frames, bad)
            self._halve(values, rows[middle:], frames, bad)

    def _block(self, values: Sequence[bytes | None]) -> pl.DataFrame | None:
        """The values as columns, if every one is a record of the first one's schema and ends where it should."""
        first = values[0] or b""
        try:
            schema_id = schema_id_of(first)
            # The first value once more at the end: the mark before it proves where the last one ended.
            body = MARK.join([b"", *values, first])  # type: ignore[list-item]
        except (ValueError, TypeError):
            # No header, or a tombstone, which cannot be joined; to look for either costs more than to fail.
            return None
        writer = self._writer(schema_id)
        if writer is None:
            return None
        try:
            frame = writer.records.read(len(values) + 1, body, [_PREFIX, *writer.present])
            if frame.height != len(values) + 1:
                return None
            is_marked = pl.col(_PREFIX) == pl.lit(MARK + header(schema_id))
            frame = frame.select(is_marked, *self._as_reader(writer.present))
        except (PolarsError, PanicException, OSError):
            # polars panics on a length that points outside of the block.
            return None
        if not frame.drop_in_place(_PREFIX).all():
            return None
        frame = frame.head(-1)
        return None if any(column.null_count() for column in frame.get_columns()) else frame

    def _reason(self, value: bytes) -> str:
        """Why a value that stands alone is bad."""
        writer = self._writer(schema_id_of(value))
        assert writer is not None
        missing = [c for c in self._columns if c not in writer.present and c not in self._defaults]
        if missing:
            return f"field {', '.join(missing)} is missing in the writer's schema"
        return f"does not decode as {writer.name}, schema id {schema_id_of(value)}"

    def _writer(self, schema_id: int) -> _Writer | None:
        found = self._writers.get(schema_id)
        if found is None and (schema := self._lookup(schema_id)) is not None:
            names = {f["name"] for f in schema["fields"]}
            found = _Writer(
                schema.get("name", "a record"),
                Records(schema | {"fields": [_MARKED, *schema["fields"]]}),
                [column for column in self._columns if column in names],
            )
            # Only what is there is remembered: an id that is unknown today may be registered tomorrow.
            self._writers[schema_id] = found
        return found

    def _as_reader(self, present: Sequence[str]) -> list[pl.Expr]:
        return [
            pl.col(column).cast(self._dtypes[column])
            if column in present
            else pl.lit(self._defaults.get(column), dtype=self._dtypes[column]).alias(column)
            for column in self._columns
        ]

    def _reader_types(self, reader: Any) -> dict[str, Any]:
        empty = Records(reader).read(0, b"", self._columns)
        return {
            name: pl.String if isinstance(dtype, (pl.Categorical, pl.Enum)) else dtype
            for name, dtype in empty.schema.items()
        }

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema={"row": pl.get_index_type()} | {c: self._dtypes[c] for c in self._columns})


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
