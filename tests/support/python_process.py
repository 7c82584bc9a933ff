"""Python code in a process of its own, from the project's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` printed and how it ended."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )
