"""Events wait here until the backend has them: nobody who emits one waits, and none overtakes another.

An event is a file from the moment it is put in until it is delivered, so a process that was killed leaves what its
successor delivers first. Each transport has files and a thread of its own: one that is away holds no other back. Who
puts one in writes a file and no more (it is a thread for that); answers are the lanes' business.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import parent_run
from openlineage.client.serde import Serde
from prometheus_client import Counter, Gauge

from observability import logs
from observability.supervision import reason

# Of a process and backend: more than three days of a run that tells once a minute, about 200 MB at 40 kB each. More
# would be a disk that fills because a backend is gone.
MOST_EVENTS = 5_000
# What a killed process had not finished writing; nobody writes one for so long.
UNFINISHED_SECONDS = 3600.0
# Between attempts at a backend that does not answer.
AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# How soon a folder is looked at again that another process of the same name delivers from.
HELD_SECONDS = 1.0

WAITING = Gauge("electrored_lineage_waiting_events", "OpenLineage events that wait for the backend", ["lane"])
DELIVERED = Counter(
    "electrored_lineage_delivered_total", "OpenLineage events that the backend took", ["lane"]
)
REFUSED = Counter(
    "electrored_lineage_refused_total", "OpenLineage events that the backend will never take", ["lane"]
)
DROPPED = Counter("electrored_lineage_dropped_total", "OpenLineage events dropped, too many waited", ["lane"])

_log = logs.get(__name__)


class EventRefused(Exception):
    """The backend would refuse the same event again."""


class Send(Protocol):
    """Hands an event over; when it returns the backend has it, and if it raises it may be asked again."""

    def __call__(self, event: RunEvent) -> None: ...


class Outbox:
    """The events of a process, for every transport."""

    def __init__(self, lanes: Mapping[str, Send], folder: Path | None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="electrored-lineage-")
        folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self._lanes = [_Lane(name, send, folder / name) for name, send in lanes.items()]

    def put(self, event: RunEvent) -> None:
        """Have the event delivered, after those that were put in before; does not wait."""
        text = Serde.to_json(event)
        state = event.eventType.value if event.eventType else RunState.OTHER.value
        for lane in self._lanes:
            lane.put(state, text)

    def take_over(self, folder: Path) -> None:
        """Have delivered what waits in the folder of a process that is gone."""
        for lane in self._lanes:
            lane.take_over(folder / lane.name)

    def close(self, seconds: float) -> bool:
        """Let the backend take what is left, for so long; gives whether nothing is. The rest stays for a successor."""
        deadline = time.monotonic() + seconds
        ended = [lane.close(deadline) for lane in self._lanes]
        if self._temporary is not None:
            self._temporary.cleanup()
        return all(ended)


class _Lane:
    def __init__(self, name: str, send: Send, folder: Path) -> None:
        self.name = name
        self._send = send
        self._folder = folder
        self._closing = threading.Event()
        self._closed_at: float | None = None
        self._wake = threading.Event()
        self._last = 0
        self._warned = False
        # From 0 on, or an increase would not count the first.
        for counter in (DELIVERED, REFUSED, DROPPED):
            counter.labels(name)
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*.part"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > UNFINISHED_SECONDS:
                    partial.unlink()
        self._sender = threading.Thread(target=self._guarded, daemon=True)
        self._sender.start()

    def put(self, state: str, text: str) -> None:
        """Into a file, named by the time so that they are in order over the lives of processes."""
        # A clock that goes back must not let an event overtake another of this process.
        self._last = max(self._last + 1, time.time_ns())
        # The process, because several may share the folder.
        name = f"{self._last:020d}.{os.getpid()}.{state}.json"
        partial = self._folder / f"{name}.part"
        partial.write_text(text, encoding="utf-8")
        partial.rename(self._folder / name)
        self._make_room()
        self._wake.set()

    def take_over(self, folder: Path) -> None:
        for file in sorted(folder.glob("*.json")):
            file.rename(self._folder / file.name)
        self._wake.set()

    def close(self, deadline: float) -> bool:
        self._closed_at = deadline
        self._closing.set()
        self._wake.set()
        self._sender.join(max(0.0, deadline - time.monotonic()))
        return not self._sender.is_alive() and not self._files()

    def _guarded(self) -> None:
        while True:
            try:
                return self._deliver()
            except Exception as error:
                # Lineage is told, data is moved: a folder that cannot be read is no reason to stop that.
                _log.warning("lineage events wait", lane=self.name, reason=reason(error))
                if self._closing.wait(AGAIN_SECONDS[-1]):
                    return None

    def _make_room(self) -> None:
        files = self._files()
        WAITING.labels(self.name).set(len(files))
        if len(files) <= MOST_EVENTS:
            return
        # What a run said on its way is said again by what it says later; its beginning and end are not.
        middle = [file for file in files if f".{RunState.RUNNING.value}." in file.name]
        (middle or files)[0].unlink(missing_ok=True)
        DROPPED.labels(self.name).inc()
        if not self._warned:
            _log.warning("too many lineage events wait: the oldest go", lane=self.name, most=MOST_EVENTS)
            self._warned = True

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))

    def _deliver(self) -> None:
        """Files → backend, the oldest first; one process at a time where several share the folder."""
        lock = FileLock(self._folder / "sending.lock", thread_local=False)
        while True:
            try:
                with lock.acquire(timeout=0):
                    self._deliver_held()
                return
            except Timeout:
                if self._is_over() or (self._closing.is_set() and not self._files()):
                    return
                self._wake.wait(HELD_SECONDS)

    def _deliver_held(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            for file in self._files():
                while not self._is_over():
                    outcome = DELIVERED
                    try:
                        self._send(_event(file))
                    except FileNotFoundError:
                        # Dropped, too many waited.
                        break
                    except EventRefused as error:
                        outcome = REFUSED
                        _log.warning("a lineage event is refused", lane=self.name, reason=str(error))
                    except Exception as error:
                        wait = AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)]
                        failures += 1
                        if failures == 1:
                            _log.warning("lineage events wait", lane=self.name, reason=reason(error))
                        # Who ends does not wait for a backend that is away.
                        if self._closing.wait(wait):
                            return
                        continue
                    file.unlink(missing_ok=True)
                    outcome.labels(self.name).inc()
                    if failures:
                        _log.info("lineage events are delivered again", lane=self.name)
                    failures = 0
                    break
                if self._is_over():
                    return
            WAITING.labels(self.name).set(len(self._files()))
            if self._closing.is_set() and not self._files():
                return
            self._wake.wait(HELD_SECONDS)

    def _is_over(self) -> bool:
        return self._closed_at is not None and time.monotonic() > self._closed_at


def _event(file: Path) -> RunEvent:
    """Raises EventRefused for a file that nobody of ours wrote."""
    text = file.read_text(encoding="utf-8")
    try:
        return restored(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise EventRefused(f"{file.name} is no event: {error!r}") from error


def restored(event: Mapping[str, Any]) -> RunEvent:
    """The event that was written as JSON; its facets stay as they were written."""
    run, job = event["run"], event["job"]
    facets: dict[str, Any] = dict(run.get("facets", {}))
    if (parent := facets.get("parent")) is not None:
        # The Kafka transport finds an event's key by it.
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(parent["run"]["runId"]),
            parent_run.Job(parent["job"]["namespace"], parent["job"]["name"]),
            producer=parent["_producer"],
        )
    return RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=Run(run["runId"], facets),
        job=Job(job["namespace"], job["name"], job.get("facets", {})),
        inputs=[
            InputDataset(
                one["namespace"],
                one["name"],
                inputFacets=one.get("inputFacets", {}),
                facets=one.get("facets", {}),
            )
            for one in event.get("inputs", ())
        ],
        outputs=[
            OutputDataset(
                one["namespace"],
                one["name"],
                outputFacets=one.get("outputFacets", {}),
                facets=one.get("facets", {}),
            )
            for one in event.get("outputs", ())
        ],
        producer=event["producer"],
    )
