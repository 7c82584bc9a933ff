"""Whether a writer's field may be read as the reader's: Avro's rules for the types that our logs have, and no more.

A column that could be cast is not therefore the same fact: a double is no exact amount, a millisecond no microsecond.
"""

from __future__ import annotations

from typing import Any

# Logical types that change the meaning of a number; others, such as uuid, do not affect the bytes.
_MEANINGS = ("decimal", "date", "time-", "timestamp-", "local-timestamp-", "duration")


def is_decimal(avro: Any) -> bool:
    return isinstance(avro, dict) and avro.get("logicalType") == "decimal"


def is_timestamp(avro: Any) -> bool:
    return isinstance(avro, dict) and str(avro.get("logicalType", "")).startswith("timestamp-")


def difference(writer: Any, reader: Any) -> str | None:
    """What the writer's type is instead of the reader's; None if it is that.

    A writer's field may be optional, of which the nulls are bad values, and an int where the reader has a long.
    """
    if isinstance(writer, list) and len(writer) == 2 and "null" in writer:
        writer = writer[1 - writer.index("null")]
    written, wanted = _meaning(writer), _meaning(reader)
    if written == wanted or (written, wanted) == ("int", "long"):
        return None
    return f"{written} and not {wanted}"


def _meaning(avro: Any) -> str:
    if isinstance(avro, list):
        return "a union"
    if isinstance(avro, str):
        return avro
    kind, logical = str(avro["type"]), str(avro.get("logicalType", ""))
    if not logical.startswith(_MEANINGS):
        return kind
    if logical == "decimal":
        return f"decimal({avro['precision']}, {avro.get('scale', 0)}) as {kind}"
    return f"{logical} as {kind}"
