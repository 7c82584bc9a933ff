"""Run callables in threads, and get what they raised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

# Only a hang takes longer.
JOIN_SECONDS = 90.0


class Background:
    """A callable in a thread; `error` is what it raised."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._thread = threading.Thread(target=self._main, daemon=True)
        self.error: BaseException | None = None

    def _main(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Wait for the end; raises what the callable raised."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@contextmanager
def running(*runs: Callable[[threading.Event], object], seconds: float = 60.0) -> Iterator[threading.Event]:
    """Each in a thread until the block ends; what one of them raised is raised then."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(runs)) as threads:
        futures = [threads.submit(run, stop) for run in runs]
        try:
            yield stop
        finally:
            stop.set()
        for future in futures:
            future.result(seconds)


@contextmanager
def collecting(*runs: Callable[[threading.Event], object]) -> Iterator[list[BaseException]]:
    """Each in a thread until the block ends; what they raised is in the list."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def main(run: Callable[[threading.Event], object]) -> None:
        try:
            run(stop)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=main, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        assert not any(thread.is_alive() for thread in threads)
