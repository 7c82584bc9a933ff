"""Events go where openlineage-python's settings point, and what a backend refuses is noticed here."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from lineage.emitter import START
from lineage.events import EventRefused, restored
from lineage.transports import queues
from observability.progress_report import ProgressReport
from tests.support.lineage_events import JOBS, run_event
from tests.support.marquez import Marquez

TRANSFORMER = (
    "openlineage.client.transport.transform.transformers.job_namespace_replace_transformer."
    "JobNamespaceReplaceTransformer"
)


@pytest.fixture
def backend() -> Iterator[Marquez]:
    with Marquez() as server:
        yield server


def settings(url: str) -> dict[str, dict[str, str]]:
    """The environment of a process, by where `async_http` stands in it."""
    plain = {"type": "async_http", "url": url, "max_concurrent_requests": 3}
    prefix = "OPENLINEAGE__TRANSPORT__"
    return {
        "alone": {f"{prefix}TYPE": "async_http", f"{prefix}URL": url},
        "in a composite": {f"{prefix}TYPE": "composite", f"{prefix}TRANSPORTS": json.dumps({"it": plain})},
        "behind a transformer": {
            f"{prefix}TYPE": "transform",
            f"{prefix}TRANSPORT": json.dumps(plain),
            f"{prefix}TRANSFORMER_CLASS": TRANSFORMER,
            f"{prefix}TRANSFORMER_PROPERTIES": json.dumps({"new_job_namespace": "shop"}),
        },
    }


@pytest.mark.parametrize("where", ["alone", "in a composite", "behind a transformer"])
def test_an_event_that_an_asynchronous_backend_does_not_take_is_kept(
    backend: Marquez, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for name, value in settings(backend.url)[where].items():
        monkeypatch.setenv(name, value)
    (send,) = queues(None).values()
    event = restored(json.dumps(run_event(JOBS[0], START, ProgressReport())))
    # The answer of an absent backend; the library does not retry by itself.
    backend.status = 404
    with pytest.raises(requests.HTTPError):
        send(event)
    backend.status = 422
    with pytest.raises(EventRefused):
        send(event)
    backend.status = 201
    send(event)
    assert [sent["run"]["runId"] for sent in backend.sent] == [event.run.runId] * 3
