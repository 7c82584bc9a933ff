"""Columns → sale events in Avro, a chunk at a time: whole columns are put together, never a row.

A column of values becomes a column of their bytes, by looking pieces of 14 or 16 bits up in tables; columns of bytes
are concatenated. The unit test compares the output with a generic Avro reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from kafka_client import avro
from kafka_client.registry import header

_BITS = 14
_MASK = (1 << _BITS) - 1
# A number's lowest 14 bits where it goes on; where it ends there; and nothing, where it had ended before.
_PIECES = pl.Series(
    [bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << _BITS)]
    + [avro.varint(n) for n in range(1 << _BITS)]
    + [b""],
    dtype=pl.Binary,
)
_ENDS, _NOTHING = 1 << _BITS, 2 << _BITS
# 16 bits, big-endian; and nothing.
_WORDS = pl.Series([n.to_bytes(2, "big") for n in range(1 << 16)] + [b""], dtype=pl.Binary)
_NO_WORD = 1 << 16
# Avro's length of 0 to 4 words.
_WORDS_LENGTHS = pl.Series([avro.long(2 * words) for words in range(5)], dtype=pl.Binary)
_OPERATIONS = pl.Series([avro.string(b"SALE"), avro.string(b"REVERSAL")], dtype=pl.Binary)

Longs = npt.NDArray[np.int64]


def longs(values: Longs) -> pl.Series:
    """Avro's `long` for each value."""
    rest = ((values << 1) ^ (values >> 63)).view(np.uint64)
    going = np.ones(len(rest), dtype=bool)
    out: pl.Series | None = None
    while out is None or going.any():
        low = (rest & np.uint64(_MASK)).astype(np.int64)
        rest = rest >> np.uint64(_BITS)
        is_last = rest == 0
        piece = _PIECES.gather(np.where(going, np.where(is_last, low + _ENDS, low), _NOTHING))
        out = piece if out is None else out + piece
        going &= ~is_last
    return out


def strings(values: pl.Series) -> pl.Series:
    """Avro's `string` for each text."""
    utf8 = values.cast(pl.Binary)
    return longs(values.str.len_bytes().cast(pl.Int64).to_numpy()) + utf8


def decimals(unscaled: Longs) -> pl.Series:
    """Avro's `decimal` over bytes for each number: two's complement, big-endian, in whole words."""
    words = np.ones(len(unscaled), dtype=np.int64)
    for count in (1, 2, 3):
        half = 1 << (16 * count - 1)
        words[(unscaled < -half) | (unscaled >= half)] = count + 1
    out = _WORDS_LENGTHS.gather(words)
    for number in (3, 2, 1, 0):
        word = (unscaled >> (16 * number)) & 0xFFFF
        out = out + _WORDS.gather(np.where(words > number, word, _NO_WORD))
    return out


class Encoder:
    """Encodes the values of `sales-events`; one writer schema, one source."""

    def __init__(self, schema_id: int, source: str) -> None:
        self._head = header(schema_id) + avro.string(source.encode())

    def encode(self, events: pl.DataFrame, first_seq: int, recorded_at: int) -> list[bytes]:
        """One value for each row of columns as `validate.SCHEMA` has them, and `reversal`, which negates.

        Their seqs go up from `first_seq`; `recorded_at` is microseconds of the Unix epoch.
        """
        seqs = np.arange(first_seq, first_seq + events.height, dtype=np.int64)
        reversal = events["reversal"].to_numpy()
        sign = np.where(reversal, -1, 1)
        out = pl.Series([self._head], dtype=pl.Binary).gather(np.zeros(events.height, dtype=np.int64))
        out = out + longs(seqs) + strings(events["sale_id"]) + _OPERATIONS.gather(reversal.astype(np.int64))
        out = out + longs(events["sold_at"].to_numpy())
        out = out + longs(np.full(events.height, recorded_at, dtype=np.int64))
        for name in ("city", "country", "salesman_id", "salesman_name", "product"):
            out = out + strings(events[name])
        out = out + longs(sign * events["quantity"].to_numpy()) + decimals(sign * events["amount"].to_numpy())
        values: list[Any] = (out + strings(events["currency"])).to_list()
        return values
