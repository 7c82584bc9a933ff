"""Ask the API of lineage, and read its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from api.main import create_app
from contracts.settings import ApiSettings, ResultsDbSettings
from observability.lineage.keeping import Keeper
from stack.embedded import Embedded


class answering:
    """Ask the API while what the jobs say is kept."""

    def __init__(self, stack: Embedded, results_db: ResultsDbSettings, *, follows: bool = True) -> None:
        self._engine = create_engine(results_db.results_db_url.get_secret_value())
        self._stop = threading.Event()
        self._keeper = Keeper(stack.kafka, self._engine, self._stop) if follows else None
        url = stack.postgres(self._engine.url.database, "electrored_reader").render_as_string(False)
        self._client = TestClient(create_app(ApiSettings.model_validate({"results_db_url": url})))

    def __enter__(self) -> Callable[..., dict[str, Any]]:
        if self._keeper is not None:
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
        if self._keeper is not None:
            self._keeper.join()
        self._engine.dispose()


def direct(step: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        one
        for one in step["next"]
        if not one["transformations"] or any(t["type"] == "DIRECT" for t in one["transformations"])
    ]


def ends(step: dict[str, Any]) -> Iterator[tuple[str, str]]:
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
