"""What taking a file back makes of what is known of it."""

from __future__ import annotations

from dataclasses import replace

from contracts import datasets
from contracts.columns import SALE_COLUMNS
from observability.lineage.hops import BATCH, Job, Kind, Origin, Read, named_alike
from sources import lineage as lineage_of


def retraction() -> Job:
    """What the files said and still counts → its reversals, and less that counts."""
    columns = named_alike(datasets.CSV_SALES, SALE_COLUMNS)
    for negated in ("quantity", "amount"):
        columns[negated] = (Origin(datasets.CSV_SALES, negated, Kind.IDENTITY, "negated in a reversal"),)
    log, positions, _, kept = lineage_of.csv().outputs
    return Job(
        "csv-retract",
        BATCH,
        "sources/csv/retracting.py",
        (Read(datasets.CSV_SALES, kept.schema),),
        (replace(log, columns=columns), positions, replace(kept, columns={})),
    )
