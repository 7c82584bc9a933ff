"""`python -m observability`: the observer, until it is told to stop."""

from __future__ import annotations

import signal
import threading

from prometheus_client import REGISTRY

from contracts.settings import KafkaSettings, ObserverSettings, from_environment
from observability import logs, metrics
from observer.collector import observer


def main() -> None:
    logs.configure("observer")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    made = observer(from_environment(KafkaSettings), from_environment(ObserverSettings))
    REGISTRY.register(made)
    metrics.serve()
    made.run(stop)


if __name__ == "__main__":
    main()
