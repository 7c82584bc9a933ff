"""The newest event of each job and its open runs, as rows of the results database; the lineage API reads them.

Duplicate, late or reordered events neither reopen a run that ended nor replace a job's newer event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Text, and_, case, cast, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, DBAPIError

from contracts.tables import generations, lineage_jobs, lineage_runs
from lineage.run import FACET
from observability import logs

# States of a generation whose jobs are history.
GONE = ("retired", "failed")
ENDS = ("COMPLETE", "FAIL", "ABORT")
# A run that goes on emits once a minute, and is ended within a minute when it was killed. Without an event for so long
# it does not count, until its next event: its machine is gone, or its state folder. Ends are stored for as long, so an
# older event opens no run.
SILENT = timedelta(hours=1)
# SQLSTATE of a name that is too long for an index; other refusals are a DataError.
REFUSED = ("54000",)

_log = logs.get(__name__)


def keep(connection: Connection, events: Iterable[bytes | None], now: datetime) -> None:
    """Store the newest event of each job, and its open runs. Values that are no run event are skipped.

    Deletes jobs of generations that are gone, and runs without an event for `SILENT`.
    """
    for row in filter(None, (_row(event, now) for event in events)):
        try:
            # Others may write to the topic: an event that PostgreSQL refuses does not stop the rest.
            with connection.begin_nested():
                _keep(connection, row, now)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in REFUSED and not isinstance(error, DataError):
                raise
            _log.warning("a run event is skipped: PostgreSQL refuses it", reason=str(error.orig)[:200])
    gone = select(generations.c.pipeline + ".g" + cast(generations.c.number, Text)).where(
        generations.c.state.in_(GONE)
    )
    connection.execute(delete(lineage_jobs).where(lineage_jobs.c.generation.in_(gone)))
    connection.execute(delete(lineage_runs).where(lineage_runs.c.event_at < now - SILENT))


def _keep(connection: Connection, row: dict[str, Any], now: datetime) -> None:
    watermark = row.pop("watermark")
    if not _is_new(connection, row, watermark, now):
        return
    statement = insert(lineage_jobs).values(row)
    new, old = statement.excluded, lineage_jobs.c
    # An ABORT emitted for a dead process has no inputs or outputs; keep the stored ones.
    has_datasets = (func.jsonb_array_length(new.inputs) + func.jsonb_array_length(new.outputs)) > 0
    changes = {name: new[name] for name in ("run_id", "event_type", "event_at")} | {
        name: case((has_datasets, new[name]), else_=old[name])
        for name in ("generation", "facets", "inputs", "outputs")
    }
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["namespace", "name"],
            set_=changes,
            where=new.event_at >= old.event_at,
        )
    )


def _is_new(
    connection: Connection, row: Mapping[str, Any], watermark: datetime | None, now: datetime
) -> bool:
    """Store the run; whether its event is a new one, of a run that has not ended."""
    is_open = row["event_type"] not in ENDS
    if is_open and row["event_at"] < now - SILENT:
        # Its end may have been deleted by now. The job's row has the event's time.
        return True
    of_run = {name: row[name] for name in ("namespace", "name", "run_id", "event_at")}
    statement = insert(lineage_runs).values(**of_run, is_open=is_open, watermark=watermark)
    new, old = statement.excluded, lineage_runs.c
    result = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["namespace", "name", "run_id"],
            set_={
                "is_open": new.is_open,
                "event_at": func.greatest(new.event_at, old.event_at),
                "watermark": new.watermark,
            },
            # An end closes it, whatever the order of events.
            where=and_(old.is_open, or_(~new.is_open, new.event_at >= old.event_at)),
        )
    )
    return result.rowcount > 0


def _row(value: bytes | None, now: datetime) -> dict[str, Any] | None:
    try:
        # PostgreSQL's JSON cannot hold a NUL or half of a character, which an error's text or a file's name may.
        text = json.dumps(json.loads(value or b""), ensure_ascii=False).encode(errors="replace").decode()
        event = json.loads(text.replace(r"\u0000", "\N{REPLACEMENT CHARACTER}"))
        run, job = event["run"], event["job"]
        facets = run.get("facets") or {}
        ours = facets.get(FACET) or {}
        watermark = ours.get("watermark")
        return {
            "namespace": _word(job["namespace"]),
            "name": _word(job["name"]),
            "run_id": _word(run["runId"]),
            "event_type": _word(event["eventType"]),
            # A clock that is ahead would hold back later events.
            "event_at": min(_moment(event["eventTime"]), now),
            "generation": ours.get("generation"),
            "watermark": None if watermark is None else _moment(watermark),
            "facets": {"job": job.get("facets") or {}, "run": facets},
            "inputs": list(event.get("inputs") or []),
            "outputs": list(event.get("outputs") or []),
        }
    except MemoryError:
        raise
    # Others may write to the topic, in any shape.
    except Exception as error:
        _log.warning("a record is skipped: it is no run event", reason=repr(error)[:200])
        return None


def _moment(text: str) -> datetime:
    """Raises ValueError, also for a moment without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return moment


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value
