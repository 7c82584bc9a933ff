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
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
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
from observability.lineage.hops import BATCH, Job

if TYPE_CHECKING:
    from observability.lineage.outbox import Outbox

START, RUNNING, COMPLETE, FAIL, ABORT = "START", "RUNNING", "COMPLETE", "FAIL", "ABORT"
# Who ends waits so long for a backend that answers; the rest is a successor's.
CLOSE_SECONDS = 2.0
# Before that its events become files, which waits for nobody else: only a busy machine takes seconds for it.
WRITTEN_SECONDS = 15.0
KILLED = "the process was killed"

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
        folder: Path | None,
        every_seconds: float,
        *,
        is_alone: bool = True,
    ) -> None:
        self._naming = naming
        self._make_outbox = make_outbox
        self._folder = folder
        self._is_alone = is_alone
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

    def tell(
        self, run: RunOf, job: Making, state: str, facts: Facts | None = None, at: datetime | None = None
    ) -> None:
        """Tell of one moment of a run, this process's or another's."""
        self._queue.put(_Told(run, job, state, at or datetime.now(UTC), facts or Facts()))

    def close(self) -> None:
        """Hand over what was told; the rest is kept for a successor."""
        self._queue.put(None)
        self._thread.join(WRITTEN_SECONDS + CLOSE_SECONDS)

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

    # What stands open, so that somebody else can end it.

    def end_left(self, parent_run_id: str, state: str, error: str) -> int:
        """End the runs that a run had started and that were killed with it; gives how many."""
        ended = 0
        for note in self._notes():
            left = _read(note)
            if left is not None and left.parent == parent_run_id:
                self.tell(RunOf(left.run_id), partial(_nameless, left.job), state, Facts(error=error))
                note.unlink(missing_ok=True)
                ended += 1
        return ended

    def _left(self, told: _Told, job: Job) -> Iterator[_Told]:
        """The end of the run that a predecessor had begun and could not end."""
        if not self._is_alone or told.state != START or (note := self._note_of(told, job)) is None:
            return
        if (left := _read(note)) is not None:
            yield replace(told, run=RunOf(left.run_id), state=ABORT, facts=Facts(error=KILLED))

    def _note(self, told: _Told, job: Job) -> None:
        note = self._note_of(told, job)
        if note is not None and told.state == START:
            note.parent.mkdir(parents=True, exist_ok=True)
            parent = None if told.run.parent is None else told.run.parent.run_id
            note.write_text(json.dumps(asdict(_Left(told.run.id, job.name, parent))), encoding="utf-8")
        elif told.state in (COMPLETE, FAIL, ABORT):
            self._jobs.pop(told.run.id, None)
            if note is not None:
                note.unlink(missing_ok=True)

    def _notes(self) -> list[Path]:
        return [] if self._folder is None else sorted((self._folder / "open").glob("*.json"))

    def _note_of(self, told: _Told, job: Job) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / "open" / f"{job.name if self._is_alone else told.run.id}.json"


@dataclass(frozen=True)
class _Left:
    """A run that has begun, as its note says it."""

    run_id: str
    job: str
    parent: str | None


def _read(note: Path) -> _Left | None:
    """None if there is none, or one that was cut off as it was written."""
    try:
        return _Left(**json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _nameless(name: str) -> Job:
    """A job of which no more is known; what it reads and writes was told at its start."""
    return Job(name, BATCH, "", (), ())


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
    lineage = Lineage(naming, make_outbox, folder, settings.lineage_every_seconds, is_alone=is_alone)
    try:
        yield lineage
    finally:
        lineage.close()
