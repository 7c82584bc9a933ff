"""`python -m observability`: the observer, until SIGTERM or SIGINT."""

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
    collector = observer(from_environment(KafkaSettings), from_environment(ObserverSettings))
    REGISTRY.register(collector)
    metrics.serve()
    collector.run(stop)


if __name__ == "__main__":
    main()
