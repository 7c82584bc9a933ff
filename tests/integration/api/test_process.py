"""`python -m api` as a process: it serves, and stops cleanly."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys

from stack.embedded import Embedded
from tests.support.api import ApiResults


def test_sigterm_stops_it_cleanly(stack: Embedded, filled: ApiResults) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    url = stack.postgres(filled.engine.url.database or "", "electrored_reader")
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
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
            connection.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
