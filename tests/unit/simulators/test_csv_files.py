"""Files of a branch office: whole at once, and with rows that come again."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from contracts.inbox import listing
from simulators import csv_files
from simulators.csv_files import Office
from tests.support.waiting import wait_until

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_the_same_seed_and_times_give_the_same_rows() -> None:
    first, second = Office(7), Office(7)
    for _ in range(3):
        assert list(first.rows(50, NOW)) == list(second.rows(50, NOW))


def test_some_rows_come_again_and_some_of_them_corrected() -> None:
    office = Office(7)
    rows = [sale for _ in range(20) for sale in office.rows(50, NOW)]
    contents: dict[str, set[object]] = {}
    for sale in rows:
        contents.setdefault(sale.sale_id, set()).add(sale)
    corrections = sum(len(versions) - 1 for versions in contents.values())
    duplicates = len(rows) - len(contents) - corrections
    assert 10 < corrections < 100
    assert 10 < duplicates < 100


def test_a_file_is_renamed_into_place(tmp_path: Path) -> None:
    path = csv_files.drop(tmp_path, "sales_1.csv", Office(7).rows(50, NOW))
    assert [entry.name for entry in tmp_path.iterdir()] == ["sales_1.csv"]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert rows[0]["sold_at"] == "2026-11-22T12:00:00+00:00"


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulators", "csv", "--every-seconds", "30"],
        env=os.environ | {"ELECTRORED_CSV_INBOX": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        stderr=subprocess.DEVNULL,
    )

    def has_files() -> bool:
        assert process.poll() is None
        return bool(listing(tmp_path).files)

    wait_until(has_files, 30, "files")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
