"""Workers without a number: each has an instance id of its own, and a killed one's is the next one's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from streaming.generations.instance_id import free_instance_id

ROOT = Path(__file__).parents[4]
HOLD = """
import sys
from pathlib import Path
from streaming.generations.instance_id import free_instance_id
with free_instance_id(Path(sys.argv[1]), "top-sales-by-city") as slot:
    print(slot, flush=True)
    sys.stdin.read()
"""


def _holder(folder: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_processes_that_live_at_once_have_different_ids_and_a_killed_ones_is_taken_again(
    tmp_path: Path,
) -> None:
    holders = [_holder(tmp_path) for _ in range(3)]
    try:
        slots = [slot for _, slot in holders]
        name = slots[0].partition("-")[0]
        assert slots == [f"{name}-{number}" for number in range(3)]
        holders[1][0].kill()
        holders[1][0].wait()
        with free_instance_id(tmp_path, "top-sales-by-city") as slot:
            assert slot == slots[1]
    finally:
        for process, _ in holders:
            process.communicate()


def test_pipelines_count_apart_and_folders_are_named_apart(tmp_path: Path) -> None:
    with free_instance_id(tmp_path, "a") as first, free_instance_id(tmp_path, "b") as second:
        assert first == second
    with free_instance_id(tmp_path / "another", "a") as elsewhere:
        assert elsewhere.partition("-")[0] != first.partition("-")[0]
