"""The observer's probes on real servers: a dead letter counts once, lags and watermarks are the active one's."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime

from confluent_kafka import Producer
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from contracts.schemas import load
from contracts.times import EPOCH
from contracts.topics import DEAD_LETTERS, PUBLIC, SOURCE_POSITIONS, GenerationTopics
from kafka_client.clients import client_config, ensure_topics
from kafka_client.registry import Registry
from observer import probes
from observer.probes import Ledger, Sample
from sources.position_store import FileRecord, FileState
from stack import databases
from stack.embedded import Embedded
from stack.postgres import connect
from tests.support.generation_rows import AT, PIPELINE, activate
from tests.support.kafka import produce


def dead(samples: Iterable[Sample], reason: str) -> dict[str, float]:
    """By origin; with a reason of the test's own, for the topic is shared."""
    return {
        sample.labels["origin"]: sample.value
        for sample in samples
        if sample.name == "electrored_dead_letters_total" and sample.labels["reason"] == reason
    }


def test_each_dead_letter_counts_once_whoever_wrote_it_and_whenever_it_is_looked_at(stack: Embedded) -> None:
    ensure_topics(stack.kafka, PUBLIC)
    word = "".join(random.choices("abcdefghijklmnop", k=12))

    def letters(origins: list[str]) -> list[bytes]:
        codec = Registry(stack.kafka).codec(DEAD_LETTERS.subject, load(DEAD_LETTERS.schema))
        return [
            codec.encode(
                {"origin": origin, "partition": 0, "offset": 1, "reason": f"{word}: 'x{n}'", "value": None}
            )
            for n, origin in enumerate(origins)
        ]

    ledger = Ledger(stack.kafka)
    written = letters(["sales-events", f"{word}.csv", f"csv/{word}2.CSV.gz"])
    produce(stack.kafka, DEAD_LETTERS, written, prefix=word)
    assert dead(ledger.probe(), word) == {"sales-events": 1, "csv": 2}
    # A second reader of the log refuses the same events.
    produce(stack.kafka, DEAD_LETTERS, written, prefix=word)
    assert dead(ledger.probe(), word) == {"sales-events": 1, "csv": 2}
    ledger.close()
    again = Ledger(stack.kafka)
    assert dead(again.probe(), word) == {"sales-events": 1, "csv": 2}
    again.close()


def test_a_source_that_was_never_read_to_its_end_has_no_frontier(stack: Embedded) -> None:
    ensure_topics(stack.kafka, PUBLIC)
    codec = Registry(stack.kafka).codec(SOURCE_POSITIONS.subject, load(SOURCE_POSITIONS.schema))
    source = f"test-{random.randrange(10**9)}"
    ledger = Ledger(stack.kafka)

    def seen(frontier: datetime | None) -> dict[str, float]:
        record = {"source": source, "next_seq": 8, "frontier": frontier, "detail": "{}"}
        produce(stack.kafka, SOURCE_POSITIONS, [codec.encode(("electrored.SourcePosition", record))])
        return looked()

    def looked() -> dict[str, float]:
        return {
            sample.name.removeprefix("electrored_source_"): sample.value
            for sample in ledger.probe()
            if sample.labels.get("source") == source
        }

    with closing(ledger):
        assert seen(EPOCH) == {"records_total": 7, "first_reading_active": 1}
        read = {"records_total": 7, "first_reading_active": 0}
        assert seen(AT) == read | {"frontier_timestamp_seconds": AT.timestamp()}
        assert seen(None) == read, "one that waits for nothing holds nothing back"
        client = Producer(client_config(stack.kafka))
        client.produce(SOURCE_POSITIONS.name, None, key=source.encode())
        assert client.flush(30) == 0
        assert looked() == {}, "its position was deleted"


def test_row_17_files_of_which_nothing_counts_are_counted(stack: Embedded) -> None:
    ensure_topics(stack.kafka, PUBLIC)
    codec = Registry(stack.kafka).codec(SOURCE_POSITIONS.subject, load(SOURCE_POSITIONS.schema))
    source = f"test-{random.randrange(10**9)}"

    def put(state: FileState, rows: int, rejected: int) -> None:
        entry = FileRecord(
            "a" * 64,
            "sales_1.csv",
            9,
            AT,
            state,
            1,
            1,
            rows,
            {"counts": {"rows": rows, "rejected": rejected}},
        )
        record = {**vars(entry), "source": source, "detail": json.dumps(entry.detail)}
        value = codec.encode(("electrored.FileEntry", record))
        client = Producer(client_config(stack.kafka))
        client.produce(SOURCE_POSITIONS.name, value, key=f"{source}/file/x".encode())
        assert client.flush(30) == 0

    def in_vain() -> float:
        (found,) = [one.value for one in ledger.probe() if one.name == "electrored_csv_in_vain_files"]
        return found

    with closing(Ledger(stack.kafka)) as ledger:
        before = in_vain()
        seen = []
        entries: list[tuple[FileState, int, int]] = [
            ("DONE", 60, 60), ("DONE", 60, 59), ("DONE", 0, 0), ("TAKING", 9, 9)
        ]  # fmt: skip
        for state, rows, rejected in entries:
            put(state, rows, rejected)
            seen.append(in_vain() - before)
        assert seen == [1, 0, 0, 0]


def test_a_slot_is_looked_at_by_who_may_only_connect_and_while_nobody_captures(stack: Embedded) -> None:
    slot = f"test_{random.randrange(10**9)}"
    sales = create_engine(stack.postgres(databases.SALES, databases.WATCHER), poolclass=NullPool)

    def seen() -> dict[str, float | str]:
        found = {
            sample.name.removeprefix("electrored_slot_"): sample for sample in probes.probe_slot(sales, slot)
        }
        return {name: one.labels.get("status", one.value) for name, one in found.items()}

    assert seen() == {"wal_status": "missing"}
    with closing(connect(stack.postgres(databases.SALES))) as server, server.cursor() as cursor:
        cursor.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        try:
            cursor.execute("select pg_logical_emit_message(true, 'test', repeat('x', 1000000))")
            found = seen()
            assert (found["wal_status"], found["active"]) == ("reserved", 0)
            kept = float(found["retained_bytes"])
            assert kept > 1_000_000
            cursor.execute("select pg_logical_emit_message(true, 'test', repeat('x', 1000000))")
            assert float(seen()["retained_bytes"]) > kept + 1_000_000
        finally:
            cursor.execute("select pg_drop_replication_slot(%s)", (slot,))


def test_who_never_got_a_watermark_is_complete_up_to_its_beginning(stack: Embedded, engine: Engine) -> None:
    topics = GenerationTopics(PIPELINE, random.randrange(1_000, 1_000_000))
    other = GenerationTopics("enriched-sales", topics.generation)
    with engine.begin() as connection:
        activate(connection, topics)
        connection.execute(text("UPDATE sink_positions SET watermark = NULL WHERE partition = 0"))
        activate(connection, other, other.pipeline)
        connection.execute(text("DELETE FROM sink_positions WHERE pipeline = 'enriched-sales'"))
        connection.execute(text("UPDATE generations SET created_at = created_at - interval '1 hour'"))
    found = {
        (sample.labels["pipeline"], sample.labels["partition"]): sample.value
        for sample in probes.probe_results(engine)
        if sample.name == "electrored_results_watermark_timestamp_seconds"
    }
    beginning = AT.timestamp() - 3600
    assert found[PIPELINE, "0"] == beginning
    assert found[PIPELINE, "1"] == AT.replace(minute=1).timestamp()
    assert found["enriched-sales", "none"] == beginning


def test_watermarks_and_lags_are_those_of_the_active_generation(stack: Embedded, engine: Engine) -> None:
    topics = GenerationTopics(PIPELINE, random.randrange(1_000, 1_000_000))
    ensure_topics(stack.kafka, (*PUBLIC, *topics.all))
    with engine.begin() as connection:
        activate(connection, topics)
    produce(stack.kafka, topics.state, [b"x"] * 5)
    found = [*probes.probe_results(engine), *probes.probe_kafka(stack.kafka, engine)]
    watermarks = {
        sample.labels["partition"]: sample.value
        for sample in found
        if sample.name == "electrored_results_watermark_timestamp_seconds"
    }
    assert watermarks == {"0": AT.timestamp(), "1": AT.replace(minute=1).timestamp()}
    lags = {
        sample.labels["partition"]: sample.value
        for sample in found
        if sample.name == "electrored_group_lag_offsets" and sample.labels["step"] == "sink"
    }
    assert lags == {"0": 6, "1": 0}, "the transaction's marker counts"
    states = [s.labels["state"] for s in found if s.name == "electrored_generation_since_timestamp_seconds"]
    assert states == ["active"]
    names = Counter(sample.name for sample in found)
    assert names["electrored_sales_in_several_sources"] == 1
    assert names["electrored_future_sales"] == names["electrored_zone_rules_changed"] == 1
