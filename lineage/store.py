"""What each job said last, and which of its runs go on, as rows of the results database; from them lineage is answered.

What comes twice, late or in another order neither begins a run again that ended nor takes a job back to what it said
before.
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
# A run that goes on says so once a minute, and is ended within a minute when it was killed. One of which nothing was
# heard for so long counts no more, until it speaks again: its machine is gone, or its state folder. Ends are known
# for as long, so an event that is older than that opens none.
SILENT = timedelta(hours=1)
# What PostgreSQL says of a name that is too long for an index; other refusals are errors of data.
REFUSED = ("54000",)

_log = logs.get(__name__)


def keep(connection: Connection, events: Iterable[bytes | None], now: datetime) -> None:
    """Note what each job said last, and which runs of it go on. What is no event of a run says nothing here.

    Generations that are gone go, and runs of which nothing was heard for `SILENT`.
    """
    for row in filter(None, (_row(event, now) for event in events)):
        try:
            # The topic is open to whatever else tells of its runs: one that PostgreSQL refuses holds no other back.
            with connection.begin_nested():
                _keep(connection, row, now)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in REFUSED and not isinstance(error, DataError):
                raise
            _log.warning("an event of a run is passed over", reason=str(error.orig)[:200])
    gone = select(generations.c.pipeline + ".g" + cast(generations.c.number, Text)).where(
        generations.c.state.in_(GONE)
    )
    connection.execute(delete(lineage_jobs).where(lineage_jobs.c.generation.in_(gone)))
    connection.execute(delete(lineage_runs).where(lineage_runs.c.event_at < now - SILENT))


def _keep(connection: Connection, row: dict[str, Any], now: datetime) -> None:
    watermark = row.pop("watermark")
    if not _is_news(connection, row, watermark, now):
        return
    statement = insert(lineage_jobs).values(row)
    new, old = statement.excluded, lineage_jobs.c
    # Who ends the run of another knows not what that read and wrote.
    knows = (func.jsonb_array_length(new.inputs) + func.jsonb_array_length(new.outputs)) > 0
    changes = {name: new[name] for name in ("run_id", "event_type", "event_at")} | {
        name: case((knows, new[name]), else_=old[name])
        for name in ("generation", "facets", "inputs", "outputs")
    }
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["namespace", "name"],
            set_=changes,
            where=new.event_at >= old.event_at,
        )
    )


def _is_news(
    connection: Connection, row: Mapping[str, Any], watermark: datetime | None, now: datetime
) -> bool:
    """Note the run; whether its event is one that was not known, of a run that has not ended."""
    is_open = row["event_type"] not in ENDS
    if is_open and row["event_at"] < now - SILENT:
        # Whether it ended may be forgotten by now. What the job says last is told with its time.
        return True
    of_run = {name: row[name] for name in ("namespace", "name", "run_id", "event_at")}
    statement = insert(lineage_runs).values(**of_run, is_open=is_open, watermark=watermark)
    new, old = statement.excluded, lineage_runs.c
    noted = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["namespace", "name", "run_id"],
            set_={
                "is_open": new.is_open,
                "event_at": func.greatest(new.event_at, old.event_at),
                "watermark": new.watermark,
            },
            # An end ends it, whatever was heard before.
            where=and_(old.is_open, or_(~new.is_open, new.event_at >= old.event_at)),
        )
    )
    return noted.rowcount > 0


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
            # A clock that is ahead would hold back what is told after it.
            "event_at": min(_moment(event["eventTime"]), now),
            "generation": ours.get("generation"),
            "watermark": None if watermark is None else _moment(watermark),
            "facets": {"job": job.get("facets") or {}, "run": facets},
            "inputs": list(event.get("inputs") or []),
            "outputs": list(event.get("outputs") or []),
        }
    except MemoryError:
        raise
    # The topic is open to others, and what is written there may be anything.
    except Exception as error:
        _log.warning("no event of a run is passed over", reason=repr(error)[:200])
        return None


def _moment(text: str) -> datetime:
    """Raises ValueError for a moment that does not say in which zone, too."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return moment


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value
