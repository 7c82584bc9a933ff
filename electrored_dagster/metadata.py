"""Results and failures of sources, as Dagster's metadata, checks and failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from contracts.settings import problems
from kafka_client.errors import ElectroRedError, Retriable

if TYPE_CHECKING:
    # They take seconds to import, and most runs need one of them at most.
    from sources.csv.results import FileResult, Retraction, Taking
    from sources.soap.errors import MostlyBad
    from sources.soap.poll import Result

S = TypeVar("S", bound=BaseSettings)

RECORDS_CHECK = "records_are_good"
# A tenth of a file's rows: more than single typing errors.
REJECT_RATE = 0.1
# So many files of a run are shown, the rest is counted.
FILES_SHOWN = 50


class NotSet(Exception):
    """A setting is missing or wrong; the message names it."""


def settings(kind: type[S]) -> S:
    """The settings from the environment. Raises NotSet."""
    try:
        return kind()
    except ValidationError as error:
        raise NotSet("; ".join(problems(error))) from error


@contextmanager
def as_dagster_failure() -> Iterator[None]:
    """Raise an ElectroRedError or NotSet as dg.Failure with its message; only a Retriable one may be retried."""
    try:
        yield
    except (ElectroRedError, NotSet) as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, Retriable)) from error


def taken(taking: Taking) -> dict[str, Any]:
    """The numbers of an ingestion run."""
    counts = taking.counts
    metadata: dict[str, Any] = {
        "files": len(taking.files),
        "rows": counts.rows,
        "accepted": counts.accepted,
        "duplicates": counts.duplicates,
        "corrections": counts.corrections,
        "reversals": counts.reversals,
        "rejected": counts.rejected,
        "amount": _amounts(counts.amounts),
        "rows_per_second": round(taking.rate),
        "seconds": round(taking.seconds, 2),
    }
    if taking.files:
        metadata["what_became_of_them"] = _table(
            [
                {
                    "file": file.name,
                    "outcome": file.outcome,
                    "reason": file.reason,
                    "rows": file.counts.rows,
                    "accepted": file.counts.accepted,
                    "rejected": file.counts.rejected,
                    "columns passed over": ", ".join(file.ignored_columns),
                    "disagrees with": _disagreements(file),
                }
                for file in taking.files[:FILES_SHOWN]
            ]
        )
    if taking.preview:
        metadata["preview"] = _table(taking.preview)
    return metadata


def reject_rate(taking: Taking) -> dg.AssetCheckResult:
    """Whether few rows of each file were refused, and no file as a whole; judged by file, not over all rows."""
    counts = taking.counts
    whole = [file for file in taking.files if file.outcome in ("rejected", "refused", "lost")]
    bad = sorted(
        (file for file in taking.files if file.refused_share > REJECT_RATE),
        key=lambda file: file.refused_share,
        reverse=True,
    )
    in_vain = sum(file.counts.is_in_vain for file in taking.files)
    problems = [f"{file.name} was {file.outcome}: {file.reason}" for file in whole]
    problems += [
        f"{file.name}: nothing of it counts, all {file.counts.rows} rows were refused"
        if file.counts.is_in_vain
        else f"{file.name}: {file.counts.rejected} of {file.counts.rows} rows were refused"
        for file in bad
    ]
    return dg.AssetCheckResult(
        check_name="reject_rate",
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(
            [f"{counts.rejected} of {counts.rows} rows were refused", *problems[:FILES_SHOWN]]
        ),
        metadata={
            "rate": max((file.refused_share for file in taking.files), default=0.0),
            "rejected": counts.rejected,
            "rows": counts.rows,
            "files": len(whole),
            "files_in_vain": in_vain,
        },
    )


def files_agree(taking: Taking) -> dg.AssetCheckResult:
    """Whether files of the same modification time agree on each sale."""
    problems = [f"{file.name} with {_disagreements(file)}" for file in taking.files if file.disagrees]
    return dg.AssetCheckResult(
        check_name="files_agree",
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="which of them is newer is not known, the later name counts: "
        + "; ".join(problems[:FILES_SHOWN])
        if problems
        else "no two files of one time disagree",
        metadata={"files": len(problems)},
    )


def _disagreements(file: FileResult) -> str:
    return ", ".join(f"{name} about {count} sales" for name, count in sorted(file.disagrees.items()))


def retracted(retraction: Retraction) -> dict[str, Any]:
    """The numbers of a retraction."""
    return {
        "file": retraction.name,
        "sha256": retraction.sha256,
        "taken_back": retraction.taken_back,
        "left": retraction.left,
        "amount": _amounts(retraction.amount),
    }


def polled(result: Result) -> dict[str, Any]:
    """The numbers of a complete poll."""
    return {
        "pages": result.pages,
        "confirmations": result.confirmations,
        "dead_letters": result.dead,
        "amount": _amounts(result.amounts),
        "cursor_before": result.cursor_before,
        "cursor_after": result.cursor_after,
        "seconds": round(result.seconds, 2),
        "elements_passed_over": dg.MetadataValue.json(dict(result.passed_over)),
    }


def records_are_good(result: Result) -> dg.AssetCheckResult:
    """Whether every record of a complete poll was accepted: a program writes them, so a wrong one is a defect."""
    return dg.AssetCheckResult(
        check_name=RECORDS_CHECK,
        passed=result.dead == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{result.dead} of {result.dead + result.confirmations} records are dead letters. When the service "
        f"has mended them: electrored soap poll --from '{result.cursor_before}'",
        metadata={"dead_letters": result.dead, "cursor_before": result.cursor_before},
    )


def page_is_bad(error: MostlyBad) -> dg.AssetCheckResult:
    """The same check for a poll that ended at a page that was refused as a whole."""
    return dg.AssetCheckResult(
        check_name=RECORDS_CHECK, passed=False, severity=dg.AssetCheckSeverity.ERROR, description=str(error)
    )


def _amounts(amounts: Mapping[str, Decimal]) -> dg.MetadataValue[Any]:
    # Money is exact, and JSON's numbers are not.
    return dg.MetadataValue.json({currency: str(amount) for currency, amount in sorted(amounts.items())})


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
