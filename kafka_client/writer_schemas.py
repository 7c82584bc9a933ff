"""Checks of writer schemas from the registry: bounded Avro is accepted, anything else is a dead letter's reason.

A writer's schema decides how much work decoding a value is. With one that refers to itself, or has items without bytes,
a few bytes may cause any depth or any number of steps: such a schema is never passed to a decoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Far above our schemas, far below what would delay a poll.
MOST_CHARACTERS = 1_000_000
# Types of a record, counted through all that they consist of.
MOST_TYPES = 10_000

_BYTES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}


class Undecodable(ValueError):
    """A value, or its writer's schema, cannot be decoded by the reader of its topic; the message is the reason."""


class UnknownSchema(Undecodable):
    """The registry does not have the id; it may be registered later."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"schema id {schema_id} is unknown to the registry")


class LostSchema(Undecodable):
    """A value of ours whose id the registry has lost, or has given to another schema.

    The value is not at fault: the registry is not the one that the topic was written with.
    """

    def __init__(self, schema_id: int, name: str) -> None:
        super().__init__(
            f"the schema registry does not give schema id {schema_id} to {name}, which it was given to when the topic "
            "was written: its database was emptied, or restored to another time, or it is another registry. "
            'Restore it ("When the registry lost its schemas" in docs/operations.md)'
        )


def one_line(error: BaseException) -> str:
    """An error of a library as part of a reason; it may quote a whole schema."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def parse(schema_id: int, text: str, kind: str = "AVRO") -> Any:
    """The writer's schema as parsed JSON. Raises Undecodable for an id of anything else."""
    if kind != "AVRO":
        raise Undecodable(f"schema id {schema_id} is no Avro schema but {kind}")
    if len(text) > MOST_CHARACTERS:
        raise Undecodable(
            f"schema id {schema_id} has {len(text)} characters, {MOST_CHARACTERS} are read at most"
        )
    try:
        schema = json.loads(text)
        _Shape().of(schema)
    except MemoryError:
        raise
    # The text may be anything, so the walk may raise anything.
    except Exception as error:
        reason = str(error) if isinstance(error, Undecodable) else one_line(error)
        raise Undecodable(f"schema id {schema_id} cannot be read: {reason}") from error
    return schema


class _Shape:
    """A walk through a schema that ends for every schema."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}
        self._open: set[str] = set()

    def of(self, schema: Any, namespace: str = "") -> tuple[int, int]:
        """The fewest bytes that a value has, and of how many types it consists. Raises Undecodable if unbounded."""
        least, types = self._of(schema, namespace)
        if types > MOST_TYPES:
            raise Undecodable(f"it consists of more than {MOST_TYPES} types")
        return least, types

    def _of(self, schema: Any, namespace: str) -> tuple[int, int]:
        if isinstance(schema, str):
            return (_BYTES[schema], 1) if schema in _BYTES else self._named(schema, namespace)
        if isinstance(schema, list):
            branches = [self.of(branch, namespace) for branch in schema]
            return 1 + min(least for least, _ in branches), 1 + sum(types for _, types in branches)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema, namespace)
        if kind in ("array", "map"):
            least, types = self.of(schema["items" if kind == "array" else "values"], namespace)
            if kind == "array" and least == 0:
                raise Undecodable("it has an array of items without bytes")
            return 1, 1 + types
        if kind in ("enum", "fixed"):
            size = (1 if kind == "enum" else int(schema["size"]), 1)
            self._known[_full(schema, namespace)] = size
            return size
        return self.of(kind, namespace)

    def _named(self, name: str, namespace: str) -> tuple[int, int]:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._open:
                raise Undecodable(f"{name} refers to itself")
            if candidate in self._known:
                return self._known[candidate]
        raise Undecodable(f"{name} is no type that it defines")

    def _record(self, schema: Mapping[str, Any], namespace: str) -> tuple[int, int]:
        full = _full(schema, namespace)
        self._open.add(full)
        inner = full.rpartition(".")[0]
        fields = [self.of(field["type"], inner) for field in schema["fields"]]
        self._open.discard(full)
        self._known[full] = sum(least for least, _ in fields), 1 + sum(types for _, types in fields)
        return self._known[full]


def _full(schema: Mapping[str, Any], namespace: str) -> str:
    name = str(schema.get("name", ""))
    space = str(schema.get("namespace") or namespace)
    return name if "." in name or not space else f"{space}.{name}"
