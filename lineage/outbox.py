"""Undelivered OpenLineage events, in order, on disk: emitting one never waits for the backend.

An event is a file from `put` until it is delivered, so the events of a killed process are delivered by its successor
first. Each transport has a queue with files and a thread of its own: one that is down does not delay the others.
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

# Of a process and backend: more than three days of a run that emits once a minute, about 200 MB at 40 kB each. Without
# a limit a backend that is gone would fill the disk.
MOST_EVENTS = 5_000
# Age of a file that a killed process left unfinished; writing one takes milliseconds.
UNFINISHED_SECONDS = 3600.0
# Between attempts at a backend that does not answer.
AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# Between attempts to lock a folder that another process of the same name delivers from.
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
    """Delivers an event: when it returns the backend has it, and if it raises it may be called again."""

    def __call__(self, event: RunEvent) -> None: ...


class Outbox:
    """The events of a process, for every transport."""

    def __init__(self, queues: Mapping[str, Send], folder: Path | None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="electrored-lineage-")
        folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self._queues = [_Queue(name, send, folder / name) for name, send in queues.items()]

    def put(self, event: RunEvent) -> None:
        """Queue the event behind the earlier ones; does not wait for the backend."""
        text = Serde.to_json(event)
        state = event.eventType.value if event.eventType else RunState.OTHER.value
        for queue in self._queues:
            queue.put(state, text)

    def take_over(self, folder: Path) -> None:
        """Queue the undelivered events of a dead process's folder."""
        for queue in self._queues:
            queue.take_over(folder / queue.name)

    def close(self, seconds: float) -> bool:
        """Deliver for so long what is queued; whether all was. The rest stays on disk for the next process."""
        deadline = time.monotonic() + seconds
        ended = [queue.close(deadline) for queue in self._queues]
        if self._temporary is not None:
            self._temporary.cleanup()
        return all(ended)


class _Queue:
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
        """Write the event to a file whose name orders it by time, across processes."""
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
                # A folder that cannot be read must not end the process.
                _log.warning("lineage events wait", lane=self.name, reason=reason(error))
                if self._closing.wait(AGAIN_SECONDS[-1]):
                    return None

    def _make_room(self) -> None:
        files = self._files()
        WAITING.labels(self.name).set(len(files))
        if len(files) <= MOST_EVENTS:
            return
        # A later RUNNING event repeats an earlier one; START and the end are not repeated.
        middle = [file for file in files if f".{RunState.RUNNING.value}." in file.name]
        (middle or files)[0].unlink(missing_ok=True)
        DROPPED.labels(self.name).inc()
        if not self._warned:
            _log.warning("too many lineage events wait: the oldest go", lane=self.name, most=MOST_EVENTS)
            self._warned = True

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))

    def _deliver(self) -> None:
        """Deliver files, the oldest first; one process at a time where several share the folder."""
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
                        # On shutdown: do not wait for a backend that is down.
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
    """Raises EventRefused for a file that holds no event."""
    text = file.read_text(encoding="utf-8")
    try:
        return restored(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise EventRefused(f"{file.name} is no event: {error!r}") from error


def restored(event: Mapping[str, Any]) -> RunEvent:
    """The event from its JSON; its facets stay as they were written."""
    run, job = event["run"], event["job"]
    facets: dict[str, Any] = dict(run.get("facets", {}))
    if (parent := facets.get("parent")) is not None:
        # The Kafka transport derives an event's key from it.
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
