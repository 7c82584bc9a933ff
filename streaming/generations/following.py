"""One thread for each generation that the results database lists to run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from observability import logs
from observability.waits import WAITS, Cancelled
from streaming.results_db import retried

# The delay until a new generation is started, and a retired one stopped.
TICK_SECONDS = 1.0

ThreadTarget = Callable[[threading.Event], None]
K = TypeVar("K", bound=Hashable)

_log = logs.get(__name__)


@dataclass
class _Thread:
    run: ThreadTarget
    stop: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._main)
        self.thread.start()

    def _main(self) -> None:
        try:
            self.run(self.stop)
        except Cancelled:
            pass
        except BaseException as error:
            # Raised by the main thread.
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


def supervise_threads(wanted: Callable[[], Mapping[K, ThreadTarget]], stop: threading.Event) -> None:
    """Keep one thread running for each wanted key until `stop`; an error in one ends all and is raised.

    `wanted` is called once a second. The error of a thread that is not wanted any more is dropped.
    """
    threads: dict[K, _Thread] = {}
    try:
        while not stop.is_set():
            failed = {key for key, thread in threads.items() if thread.error is not None}
            now = retried(wanted, stop)
            WAITS.turn("following")
            if now:
                WAITS.end("generation")
            else:
                WAITS.begin("generation", "no generation is to be run: did `python -m streaming init` run?")
            for key in threads.keys() - now.keys():
                threads.pop(key).end()
                _log.info("no longer followed", key=str(key))
            for error in (threads[key].error for key in failed & now.keys()):
                assert error is not None
                raise error
            for key in now.keys() - threads.keys():
                threads[key] = _Thread(now[key])
            stop.wait(TICK_SECONDS)
    except Cancelled:
        pass
    finally:
        WAITS.leave("following")
        WAITS.end("generation")
        for thread in threads.values():
            thread.stop.set()
        for thread in threads.values():
            thread.end()
