"""A whole platform for a measurement: its own state folder and ports, gone afterwards."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import make_url

from benchmarks.servers import clean_environment
from stack import probes
from stack.layout import Layout
from stack.supervisor import Supervisor

# Away from the ports of a running platform, and from the offsets that people choose.
PORT_OFFSET = 21_000
START_TIMEOUT_SECONDS = 600
# After a load that was more than the platform takes.
CAUGHT_UP_SECONDS = 300.0
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


def supervisor(environment: Mapping[str, str]) -> Supervisor:
    return Supervisor(Layout(Path(environment[STATE])))


def caught_up(environment: Mapping[str, str]) -> None:
    """Wait until the results hold everything that was sold until now: what a measurement left is not the next one's."""
    results = make_url(environment["ELECTRORED_RESULTS_DB_URL"])
    now = datetime.now(UTC)
    deadline = time.monotonic() + CAUGHT_UP_SECONDS
    while (probes.watermark(results) or now) <= now:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the results are not complete up to {now} within {CAUGHT_UP_SECONDS:.0f} s")
        time.sleep(0.2)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from stack.cli import main; main()", *arguments]


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
