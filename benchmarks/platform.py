"""A whole platform for a measurement: its own state folder and ports, gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Away from the ports of a running platform, and from the offsets that people choose.
PORT_OFFSET = 21_000
START_TIMEOUT_SECONDS = 600
STATE = "ELECTRORED_STATE_DIR"


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """Start the platform with `electrored up`, without simulated sales; yields what `electrored env` prints, and the
    state folder.
    """
    # Not below a folder that only this user may enter: PostgreSQL started by root runs as another one.
    with tempfile.TemporaryDirectory(prefix="electrored-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        state = ["--state-dir", str(Path(folder) / "state")]
        start = ["--detach", "--no-simulate", "--history-days", "0", "--port-offset", str(PORT_OFFSET)]
        try:
            electrored("up", *state, *start)
            printed = electrored("env", *state)
            yield dict(line.split("=", 1) for line in printed.splitlines()) | {STATE: state[1]}
        finally:
            electrored("down", *state)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from stack.cli import main; main()", *arguments]


def clean_environment() -> dict[str, str]:
    """This environment without ELECTRORED_*: everything measured is started here."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ELECTRORED_")}


def electrored(*arguments: str) -> str:
    """Stdout of the command. On failure its output goes to stderr and CalledProcessError is raised."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=START_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return done.stdout
