"""Prometheus's own checks."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def promtool(*arguments: object) -> str:
    """What promtool prints; a machine without it (Debian: `prometheus`) fails here, and shall."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
