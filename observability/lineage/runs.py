"""Runs that are told: START when one begins, RUNNING while it goes on, COMPLETE or FAIL at its end.

A run that its process did not end, because it was killed, is ended by the next one of that process: ABORT. Telling
costs its caller nothing: a thread makes the events and hands them to the outbox, and what goes wrong there is logged.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from contracts.datasets import Dataset, Places
from contracts.settings import (
    CsvSettings,
    KafkaSettings,
    LineageSettings,
    ResultsDbSettings,
    SalesDbSettings,
    SoapSettings,
)
from observability import logs
from observability.lineage.hops import Job

if TYPE_CHECKING:
    from observability.lineage.outbox import Outbox

START, RUNNING, COMPLETE, FAIL, ABORT = "START", "RUNNING", "COMPLETE", "FAIL", "ABORT"
# Who ends waits so long for the events that tell it; a backend that is away gets them from a successor.
CLOSE_SECONDS = 3.0

_log = logs.get(__name__)


@dataclass(frozen=True)
class Parent:
    """The run that started a run."""

    namespace: str
    name: str
    run_id: str


@dataclass(frozen=True)
class Facts:
    """What a run says of itself when it says something. `rows` are those written so far, by dataset."""

    watermark: datetime | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    checkpoints: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    rows: Mapping[Dataset, int] = field(default_factory=dict)
    assertions: Mapping[Dataset, Sequence[tuple[str, bool]]] = field(default_factory=dict)
    error: BaseException | str | None = None


@dataclass(frozen=True)
class Naming:
    """How names are made of ours: the namespace of jobs, the places of datasets, where the code is to be seen."""

    namespace: str
    places: Places
    source_url: str = ""


@dataclass(frozen=True)
class RunOf:
    """One run of a job."""

    id: str
    parent: Parent | None = None
    nominal: tuple[datetime, datetime | None] | None = None


Making = Callable[[], Job]
Telling = Callable[[], Facts]


@dataclass(frozen=True)
class _Told:
    run: RunOf
    job: Making
    state: str
    at: datetime
    facts: Facts


class Saying:
    """Facts that the one who runs sets, and the one who tells asks for."""

    def __init__(self) -> None:
        self.facts = Facts()

    def __call__(self) -> Facts:
        return self.facts


class Untold:
    """For who runs without anybody being told."""

    def told(self, job: Making, facts: Telling = Facts, **_: Any) -> AbstractContextManager[None]:
        return nullcontext()


UNTOLD = Untold()


class Lineage:
    """The runs of one process. Jobs are made, and events and files written, in a thread of its own."""

    def __init__(
        self,
        naming: Naming,
        make_outbox: Callable[[], Outbox],
        open_runs: Path | None,
        every_seconds: float,
    ) -> None:
        self._naming = naming
        self._make_outbox = make_outbox
        self._open = open_runs
        self._every_seconds = every_seconds
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[_Told | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="lineage", daemon=True)
        self._thread.start()

    @contextmanager
    def told(
        self,
        job: Making,
        facts: Telling = Facts,
        *,
        run_id: str | None = None,
        parent: Parent | None = None,
        nominal: tuple[datetime, datetime | None] | None = None,
    ) -> Iterator[None]:
        """Tell of a run as long as the block lasts, and how it ended. `job` and `facts` are asked in other threads."""
        run = RunOf(run_id or str(uuid4()), parent, nominal)
        self._tell(run, job, START, facts)
        ended = threading.Event()
        threading.Thread(target=self._tick, args=(run, job, facts, ended), daemon=True).start()
        try:
            yield
        except BaseException as error:
            ended.set()
            self._tell(run, job, FAIL, facts, error)
            raise
        ended.set()
        self._tell(run, job, COMPLETE, facts)

    def tell(self, run: RunOf, job: Making, state: str, facts: Facts) -> None:
        """Tell of one moment of a run that is not this process's."""
        self._queue.put(_Told(run, job, state, datetime.now(UTC), facts))

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Hand over what was told; the rest is kept for a successor."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _tick(self, run: RunOf, job: Making, facts: Telling, ended: threading.Event) -> None:
        while not ended.wait(self._every_seconds):
            self._tell(run, job, RUNNING, facts)

    def _tell(
        self, run: RunOf, job: Making, state: str, facts: Telling, error: BaseException | None = None
    ) -> None:
        try:
            said = facts()
        except Exception as failure:
            _log.warning("a run could not say how far it is", run=run.id, reason=repr(failure))
            said = Facts()
        self.tell(run, job, state, said if error is None else replace(said, error=error))

    def _main(self) -> None:
        try:
            # They take a second to import, which no start waits for.
            from observability.lineage import events

            outbox = self._make_outbox()
        except Exception as error:
            _log.warning("lineage is not told", reason=repr(error))
            return
        while (told := self._queue.get()) is not None:
            try:
                job = self._jobs.get(told.run.id) or told.job()
                self._jobs[told.run.id] = job
                for one in (*self._left(told, job), told):
                    outbox.put(events.event(self._naming, one.run, job, one.state, one.at, one.facts))
                self._note(told, job)
            except Exception as error:
                _log.warning("an event of lineage is lost", run=told.run.id, reason=repr(error))
        outbox.close(CLOSE_SECONDS)

    # What stands open, so that a successor can end it.

    def _left(self, told: _Told, job: Job) -> Iterator[_Told]:
        """The end of the run that a predecessor had begun and could not end."""
        if self._open is None or told.state != START:
            return
        note = self._open / "open" / f"{job.name}.json"
        if note.exists():
            left = RunOf(json.loads(note.read_text(encoding="utf-8"))["run_id"])
            yield replace(told, run=left, state=ABORT, facts=Facts(error="the process was killed"))

    def _note(self, told: _Told, job: Job) -> None:
        if self._open is None:
            return
        note = self._open / "open" / f"{job.name}.json"
        if told.state == START:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"run_id": told.run.id}), encoding="utf-8")
        elif told.state in (COMPLETE, FAIL, ABORT):
            self._jobs.pop(told.run.id, None)
            note.unlink(missing_ok=True)


Teller = Lineage | Untold
Known = KafkaSettings | SalesDbSettings | ResultsDbSettings | CsvSettings | SoapSettings


@contextmanager
def telling(
    process: str, *known: Known, settings: LineageSettings | None = None, is_alone: bool = True
) -> Iterator[Lineage]:
    """The lineage of a process with these settings, which name its datasets, for as long as the block lasts.

    Processes of one name share what waits, and one of them delivers; who `is_alone` ends what its predecessor left.
    """
    settings = settings or LineageSettings()
    folder = settings.lineage_dir and settings.lineage_dir.absolute() / process.replace(" ", "-")
    kafka = next((found for found in known if isinstance(found, KafkaSettings)), None)

    def make_outbox() -> Outbox:
        from observability.lineage.outbox import Outbox
        from observability.lineage.transports import lanes

        return Outbox(lanes(kafka), folder)

    naming = Naming(settings.lineage_namespace, Places(*known), settings.source_url)
    open_runs = folder if is_alone else None
    lineage = Lineage(naming, make_outbox, open_runs, settings.lineage_every_seconds)
    try:
        yield lineage
    finally:
        lineage.close()
