"""Readers of the API while generations are promoted under them: one generation or the other, never an error."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, text

from stack.embedded import Embedded
from streaming.replay import difference, promotion
from tests.integration.streaming.replay.filled import Filled, Holding, city

PIPELINE = "top-sales-by-city"
CITIES = [f"c{n}" for n in range(20)]
READERS, ROUNDS = 4, 12


@dataclass
class Applying:
    """A sink for both generations: one apply gives all cities of a generation one total, that ends in its number."""

    engine: Engine
    resting: threading.Lock = field(default_factory=threading.Lock)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for number in (1, 2):
                with self.resting, self.engine.begin() as connection:
                    apply = connection.scalar(
                        text(
                            "UPDATE generations SET apply_number = apply_number + 1 WHERE number = :n "
                            "RETURNING apply_number"
                        ),
                        {"n": number},
                    )
                    connection.execute(
                        text("UPDATE city_totals SET total = :total WHERE generation = :n"),
                        {"total": f"{apply}.{number}", "n": number},
                    )

    @contextmanager
    def held(self, *args: Any) -> Iterator[Any]:
        """At a barrier nothing is applied."""
        with self.resting, Holding()(*args) as barrier:
            yield barrier


@pytest.fixture
def port(stack: Embedded, engine: Engine) -> Iterator[int]:
    """`python -m api`, with the role that only reads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    url = stack.postgres(engine.url.database or "", "electrored_reader")
    environment = os.environ | {
        "ELECTRORED_RESULTS_DB_URL": url.render_as_string(hide_password=False),
        "ELECTRORED_API_PORT": str(port),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "api"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            while "running on" not in (line := process.stderr.readline()):
                assert line, "it ended before it served"
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield port
        finally:
            process.terminate()
            process.wait(60)


class Checker:
    """One answer for one version, whoever asks; versions never go back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._bodies: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.generations: set[int] = set()
        self.not_modified = 0

    def read(self, stop: threading.Event) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        last, seen, count = (0, 0), "", 0
        while not stop.is_set():
            connection.request(
                "GET",
                "/api/v1/top-sales/by-city?limit=1000",
                headers={"If-None-Match": seen} if count % 2 else {},
            )
            answer = connection.getresponse()
            body, etag = answer.read(), answer.headers["etag"]
            assert answer.status in (200, 304), body
            version = tuple(int(part) for part in etag.strip('"').split("-"))
            assert version >= last, f"{version} after {last}"
            last, count = version, count + 1
            if answer.status == 304:
                assert etag == seen
                self.not_modified += 1
            else:
                self._check(etag, body)
                seen = etag
        connection.close()
        return count

    def _check(self, etag: str, body: bytes) -> None:
        with self._lock:
            assert self._bodies.setdefault(etag, body) == body, "two answers under one ETag"
        answer = json.loads(body)
        generation = answer["generation"]
        totals = {row["total"] for row in answer["data"]}
        assert len(answer["data"]) == len(CITIES)
        assert len(totals) == 1, f"a mix: {totals}"
        assert totals.pop().endswith(f".{generation}000"), "rows of another generation than the answer says"
        self.generations.add(generation)


def test_no_reader_sees_a_mix_or_an_error_while_generations_are_promoted_and_rolled_back(
    stack: Embedded, engine: Engine, port: int
) -> None:
    filled = Filled(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    for number in (1, 2):
        filled.write(number, [city(name, f"0.{number}") for name in CITIES])
    applying, checker, stop = Applying(engine), Checker(port), threading.Event()
    with ThreadPoolExecutor(READERS + 1) as threads:
        readers = [threads.submit(checker.read, stop) for _ in range(READERS)]
        writer = threads.submit(applying.run, stop)
        try:
            for _ in range(ROUNDS):
                seen = difference.take(stack.kafka, engine, PIPELINE, 2, hold=applying.held)
                promotion.promote(
                    stack.kafka,
                    engine,
                    PIPELINE,
                    2,
                    fingerprint=seen.fingerprint,
                    approved_by="a test",
                    hold=applying.held,
                )
                promotion.rollback(
                    stack.kafka,
                    engine,
                    PIPELINE,
                    1,
                    reason="a test",
                    approved_by="a test",
                    hold=applying.held,
                )
        finally:
            stop.set()
        writer.result()
        counts = [reader.result() for reader in readers]
    assert filled.pointer() == (1, 1 + 2 * ROUNDS)
    assert checker.generations == {1, 2}, "both were read"
    assert min(counts) > ROUNDS
