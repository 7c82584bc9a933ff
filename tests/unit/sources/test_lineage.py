"""Where the events of the sources come from."""

from __future__ import annotations

from contracts import datasets
from contracts.columns import SALE_COLUMNS
from contracts.schemas import load
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SALES_EVENTS, Topic
from lineage.model import Job, OutputDataset, Transformation
from sources import lineage

# What each source gives its events by itself.
OWN = {"source", "seq", "operation", "recorded_at"}


def made(job: Job, topic: Topic) -> OutputDataset:
    return next(one for one in job.outputs if one.dataset == datasets.topic(topic))


def kinds(job: Job, topic: Topic, name: str) -> list[tuple[str, str, Transformation]]:
    return [(one.dataset.name, one.column, one.kind) for one in made(job, topic).columns[name]]


def test_what_a_reversal_negates_is_no_identity() -> None:
    job = lineage.capture("public.sales")
    for name in ("quantity", "amount"):
        assert kinds(job, SALES_EVENTS, name) == [("public.sales", name, Transformation.TRANSFORMATION)]
    assert kinds(job, SALES_EVENTS, "city") == [("public.sales", "city", Transformation.IDENTITY)]
    assert kinds(job, SALES_EVENTS, "recorded_at") == [("public.sales", "sold_at", Transformation.IDENTITY)]


def test_a_correction_in_a_file_reverses_the_former_row() -> None:
    job = lineage.csv()
    assert {read.dataset for read in job.inputs} == {datasets.CSV_INBOX, datasets.CSV_SALES}
    for name, kind in (("city", Transformation.IDENTITY), ("amount", Transformation.TRANSFORMATION)):
        expected = [(dataset, name, kind) for dataset in ("inbox", "public.csv_sales")]
        assert kinds(job, SALES_EVENTS, name) == expected
    whole = {(one.dataset, one.column, one.kind) for one in made(job, SALES_EVENTS).whole}
    for dataset in (datasets.CSV_INBOX, datasets.CSV_SALES):
        assert (dataset, "sale_id", Transformation.JOIN) in whole
        assert (dataset, "amount", Transformation.FILTER) in whole


def test_what_is_read_from_text_is_no_identity() -> None:
    job = lineage.soap()
    changed, same = Transformation.TRANSFORMATION, Transformation.IDENTITY
    for name, kind in (("amount", changed), ("confirmed_at", changed), ("status", same)):
        assert kinds(job, PAYMENT_CONFIRMATIONS, name)[0][2] == kind


def test_the_columns_of_every_input_and_output_have_types() -> None:
    jobs = (lineage.capture("public.sales"), lineage.csv(), lineage.soap())
    for job in jobs:
        for schema in [each.schema for each in job.inputs] + [each.schema for each in job.outputs]:
            assert schema
            assert all(column.type for column in schema)
    types = {column.name: column.type for column in jobs[0].inputs[0].schema}
    assert tuple(types) == SALE_COLUMNS
    assert (types["sold_at"], types["amount"]) == ("timestamptz", "numeric")
    assert types["quantity"] == "integer or smallint or bigint"
    assert {column.type for column in jobs[1].inputs[0].schema} == {"string"}
    types = {column.name: column.type for column in jobs[2].inputs[0].schema}
    assert types["amount"] == "xs:decimal"
    assert set(types) == {field["name"] for field in load(PAYMENT_CONFIRMATIONS.schema)["fields"]} - OWN


def test_what_may_be_refused_decides_and_is_a_dead_letter_as_it_came() -> None:
    for job in (lineage.capture("public.sales"), lineage.csv(), lineage.soap()):
        names = {column.name for column in job.inputs[0].schema}
        dead, events = made(job, DEAD_LETTERS), job.outputs[0]
        assert {one.column for one in dead.columns["value"]} == names
        for one in (dead, events):
            assert {origin.column for origin in one.whole if origin.kind == Transformation.FILTER} >= names
