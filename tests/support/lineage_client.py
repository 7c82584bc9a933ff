"""A client of the lineage API, and paths through its answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, make_url

from api.main import create_app
from contracts.settings import ApiSettings, ResultsDbSettings
from lineage.consumer import consume
from stack.embedded import Embedded
from tests.support.waiting import wait_until


class answering:
    """Ask the API while events of jobs are stored."""

    def __init__(self, stack: Embedded, results_db: ResultsDbSettings, *, follows: bool = True) -> None:
        self._engine = create_engine(results_db.results_db_url.get_secret_value())
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=consume, args=(stack.kafka, self._engine, self._stop))
        self._follows = follows
        self._client = TestClient(create_app(_settings(stack, results_db)))

    def __enter__(self) -> Callable[..., dict[str, Any]]:
        if self._follows:
            self._keeper.start()
        self._client.__enter__()

        def ask(dataset: str, **more: str) -> dict[str, Any]:
            found: dict[str, Any] = self._client.get(
                "/api/v1/lineage", params={"dataset": dataset, **more}
            ).json()
            return found

        return ask

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._client.__exit__(None, None, None)
        if self._follows:
            self._keeper.join()
        self._engine.dispose()


def _settings(stack: Embedded, results_db: ResultsDbSettings) -> ApiSettings:
    database = make_url(results_db.results_db_url.get_secret_value()).database or ""
    url = stack.postgres(database, "electrored_reader").render_as_string(False)
    return ApiSettings.model_validate({"results_db_url": url})


@contextmanager
def serving(stack: Embedded, results_db: ResultsDbSettings) -> Iterator[str]:
    """The API on a port of its own, for HTTP clients; returns its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(_settings(stack, results_db)), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started, what="the API")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


def direct(step: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        one
        for one in step["next"]
        if not one["transformations"] or any(t["type"] == "DIRECT" for t in one["transformations"])
    ]


def ends(step: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Where direct ways end."""
    nexts = direct(step)
    if not nexts:
        yield step["name"], step["column"]
    for one in nexts:
        yield from ends(one)


def way(step: dict[str, Any], to: str) -> Iterator[list[str]]:
    """The direct transformations on the way to a dataset."""
    for one in direct(step):
        made = [t["subtype"] for t in one["transformations"] if t["type"] == "DIRECT"]
        if one["name"] == to:
            yield made
        else:
            for rest in way(one, to):
                yield [*made, *rest]
