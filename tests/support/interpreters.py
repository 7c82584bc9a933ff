"""A pipeline's steps over values of a log, in cycles that are interpreted as rows, as columns, or as both."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest import mock

import fastavro

from contracts.schemas import load
from kafka_client.registry import HEADER_BYTES, header
from streaming.engine import combine, merge
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.engine.step import Output, Step
from streaming.testing import Driver, LogRecord
from tests.support.events import NOON
from tests.support.nasty_log import newer_schema

COLUMNS, ROWS = 0, 10**9
# Partition and value.
Value = tuple[int, bytes | None]


@contextmanager
def most_rows(number: int) -> Iterator[None]:
    """Cycles of so many events or groups are rows."""
    with mock.patch.object(combine, "MOST_ROWS", number), mock.patch.object(merge, "MOST_ROWS", number):
        yield


@dataclass(frozen=True)
class Cycle:
    """So many values in each poll; an aborted cycle's values come again in the next."""

    polls: tuple[int, ...]
    most_rows: int
    commit: bool = True


def plain(schema: Any, text: str = "string") -> Any:
    """The schema with the bytes that it has, and nothing that they mean; texts as `text`."""
    if isinstance(schema, list):
        return [plain(branch, text) for branch in schema]
    if isinstance(schema, str):
        return text if schema == "string" else schema
    if "logicalType" in schema:
        return schema["type"]
    changed = {"items": plain(schema["items"], text)} if "items" in schema else {}
    if "fields" in schema:
        changed["fields"] = [{"name": f["name"], "type": plain(f["type"], text)} for f in schema["fields"]]
    return schema | changed


class Values:
    """Encodes events as they are given: texts as text or any bytes, numbers in the units of the log."""

    def __init__(self, driver: Driver) -> None:
        self._ids = [codec.schema_id for codec in driver.event_codecs]
        self._schemas = [load(each.source.schema) for each in driver.pipeline.inputs]
        self._newer = driver.registry.register("newer", newer_schema())

    def encode(self, event: Mapping[str, Any], number: int = 0, *, newer: bool = False) -> bytes:
        """Under the schema of an input, or, of sales, under one with a field more."""
        schema, schema_id = self._schemas[number], self._ids[number]
        if newer and number == 0:
            schema, schema_id = newer_schema(), self._newer
        parsed = fastavro.parse_schema(plain(schema, "bytes"))
        record = {name: _as_bytes(name, value) for name, value in event.items()}
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        return header(schema_id) + out.getvalue()


def _as_bytes(name: str, value: Any) -> Any:
    if name == "amount":
        return int(value).to_bytes(int(value).bit_length() // 8 + 1, "big", signed=True)
    return value.encode() if isinstance(value, str) else value


MICROS = int(NOON.timestamp()) * 1_000_000


def sale(seq: int = 1, **changes: Any) -> dict[str, Any]:
    """A sale in the units of the log."""
    return {
        "source": "postgres", "seq": seq, "sale_id": f"sale-{seq}", "operation": "SALE",
        "sold_at": MICROS, "recorded_at": MICROS + 1_000_000, "city": "Berlin", "country": "DE",
        "salesman_id": "s1", "salesman_name": "Ada", "product": "tv", "quantity": 1,
        "amount": 100_000, "currency": "EUR", "till": None,
    } | changes  # fmt: skip


def payment(seq: int = 1, **changes: Any) -> dict[str, Any]:
    """A payment confirmation in the units of the log."""
    return {
        "source": "soap", "seq": seq, "payment_id": f"p{seq}", "sale_id": "sale-1", "amount": 100_000,
        "currency": "EUR", "status": "CONFIRMED", "confirmed_at": MICROS, "recorded_at": MICROS + 1_000_000,
    } | changes  # fmt: skip


def driver_over(pipeline: Pipeline, zone: str = "Europe/Berlin") -> Driver:
    parameters = Parameters(zone, timedelta(hours=1), pipeline.calendar or "1-day")
    return Driver(pipeline, parameters, input_partitions=2, state_partitions=2)


def outcomes(
    driver: Driver, logs: Sequence[Sequence[Value]], cycles: Sequence[Cycle]
) -> list[dict[str, Any]]:
    """What each cycle of combine over each log gave, and the merge after it; all but the order of groups.

    Another cycle of the last one's kind takes what is left.
    """
    found = []
    for number, log in enumerate(logs):
        messages = [LogRecord(partition, at, None, value) for at, (partition, value) in enumerate(log)]
        step = driver._combine(number, 0)
        position = 0
        for cycle in [*cycles, Cycle((len(log),), cycles[-1].most_rows)]:
            begin = position
            with most_rows(cycle.most_rows):
                for size in cycle.polls:
                    step.add(messages[position : position + size])
                    position += size
                if position < len(log):
                    step.watermark(0, NOON + timedelta(seconds=position))
                found.append(_ended(driver, step, commit=cycle.commit))
                position = min(position, len(log)) if cycle.commit else begin
                merges = driver.merges[0]
                for partition in range(driver.partials.partitions):
                    merges.add(driver.partials.after(partition, merges.progress(partition).next_offset))
                found.append(_ended(driver, merges, commit=True))
    return found


def _ended(driver: Driver, step: Step, *, commit: bool) -> dict[str, Any]:
    output = step.take()
    if commit:
        driver._commit(step, output)
    else:
        step.reset()
    return {
        "records": sorted(_shown(driver, output)),
        "progress": output.progress,
        "oldest": output.oldest_micros,
        "refused": output.refused,
        "written": output.written,
    }


def _shown(driver: Driver, output: Output) -> Iterator[str]:
    """Records, those of the partials topic with their groups in order."""
    for record in output.records:
        shown: Any = record.value
        if record.topic == "partials" and record.value is not None:
            schema = fastavro.parse_schema(plain(driver.pipeline.partial_schema()))
            body = io.BytesIO(record.value[HEADER_BYTES:])
            groups = fastavro.schemaless_reader(body, schema, None)
            assert isinstance(groups, dict)
            shown = len(record.value), groups["watermarks"], sorted(map(repr, groups["groups"]))
        yield repr((record.topic, record.partition, record.key, shown))
