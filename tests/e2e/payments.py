"""The simulated payment service beside a platform, and the list that it serves."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.ports import Ports
from tests.e2e.command import PROJECT, Platform, environment, until


@dataclass(frozen=True)
class Service:
    """The simulated payment service and the file of its list."""

    url: str
    journal: Path

    def told_to(self, **failure: object) -> None:
        body = json.dumps(failure).encode()
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/failure", body, headers, method="PUT")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()

    def listed(self) -> int:
        return int(self.ask("select count(*) from confirmations")[0][0])

    def has_more_to_come(self) -> bool:
        return bool(self.ask("select 1 from waiting limit 1"))


@contextmanager
def serving(platform: Platform, journal: Path) -> Iterator[Service]:
    """Confirms the platform's sales within seconds, where its settings expect the service."""
    port = str(Ports.with_offset(platform.offset).payments)
    command = [sys.executable, "-m", "simulators", "payments", "--port", port, "--journal", str(journal)]
    told = {**environment(), **platform.settings}
    told["ELECTRORED_SALES_DB_URL"] = platform.addresses["ELECTRORED_SALES_DB_URL"]
    with subprocess.Popen([*command, "--delay-seconds", "2"], cwd=PROJECT, env=told) as process:
        try:
            found = Service(f"http://127.0.0.1:{port}", journal)
            until(lambda: _answers(f"{found.url}/health"), 60, "the payment service answers")
            yield found
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
