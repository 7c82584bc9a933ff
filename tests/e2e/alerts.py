"""A Prometheus to query, and the repository's alerts with what takes long (`for`, ages, sizes) made short."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.command import PROJECT

RULES = PROJECT / "observability" / "prometheus"
# What an alert waits for, and its replacement here. Nothing else of it is changed.
SHORTER = {
    "ProcessRestarting": ("> 3", "> 1"),
    "ProcessWaits": ("> 120", "> 15"),
    # The observer's 5 s interval.
    "WatermarkStandsStill": ("> 120", "> 15"),
    "LagGrows": ("> 50000", "> 1000"),
    "DeadLetters": ("offset 15m", "offset 15s"),
    "CaptureStandsStill": ("> 60", "> 15"),
    "SlotRetainsWal": ("> 1073741824", "> 16777216"),
    "LineageWaits": ("> 2000", "> 3"),
    "CandidateWaits": ("> 86400", "> 5"),
    # One poll succeeds, then none can.
    "PaymentPollsFail": ("> 1200", "> 60"),
    # The simulator drops a file every 10 s, and a run takes what waits every 30 s.
    "CsvFileRefused": ("offset 15m", "offset 15s"),
    "CsvFileWaits": ("> 600", "> 75"),
}
# The full disk is the machine's: its alert fires at so many bytes below what was free, and twice as many are filled.
DISK_BYTES = 1 << 30
# Windows of rules that compare with what was before.
WINDOWS = {"LagGrows": ("[5m]", "[15s]")}
FIRES_SECONDS = 60


class Prometheus:
    """A running server, by its API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def names(self) -> set[str]:
        """Names of all metrics since the server began."""
        with urllib.request.urlopen(f"{self.url}/api/v1/label/__name__/values", timeout=10) as answer:
            return set(json.load(answer)["data"])

    def is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def firing(self) -> set[str]:
        return {row["metric"]["alertname"] for row in self.query('ALERTS{alertstate="firing"}')}

    def fired(self, seconds: int) -> set[str]:
        """Alerts that fired within so many seconds."""
        asked = f'last_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])'
        return {row["metric"]["alertname"] for row in self.query(asked)}

    def raises(self, *names: str) -> None:
        began = time.monotonic()
        missing = set(names)
        while missing:
            missing -= self.firing()
            assert time.monotonic() - began < FIRES_SECONDS, f"not raised: {missing}; fires: {self.firing()}"
            time.sleep(0.5)
        print(f"{', '.join(names)}: raised after {time.monotonic() - began:.1f} s")


def shortened(rules: str, folder: Path) -> str:
    """The alerts without their `for`, and with the ages of `SHORTER`; each has to be there."""
    disk = shutil.disk_usage(folder)
    shorter = SHORTER | {"DiskFillsUp": ("< 0.1", f"< {(disk.free - DISK_BYTES) / disk.total}")}
    parts = re.split(r"(?m)^(?=      - alert: )", re.sub(r"(?m)^ +for: .*\n", "", rules))
    for number, part in enumerate(parts):
        name = part.removeprefix("      - alert: ").split("\n", 1)[0]
        for changes in (shorter, WINDOWS):
            if name in changes:
                before, after = changes[name]
                assert before in part, f"{name} has no {before}"
                part = part.replace(before, after)
        parts[number] = part
    return "".join(parts)
