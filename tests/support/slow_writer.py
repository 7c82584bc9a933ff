"""A second process that has a file open and writes to it on request."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Writes each line of its input as it is, and confirms it; ends with its input.
WRITER = """
import sys
with open(sys.argv[1], sys.argv[2]) as file:
    print("open", flush=True)
    for line in sys.stdin:
        file.write(eval(line))
        file.flush()
        print("written", flush=True)
"""


@contextmanager
def writer(path: Path, mode: str = "a") -> Iterator[Callable[[str], None]]:
    """A second process with the file open; the yielded call returns when its text is written."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def write(text: str) -> None:
        stdin.write(f"{text!r}\n")
        stdin.flush()
        assert stdout.readline() == "written\n"

    try:
        assert stdout.readline() == "open\n"
        yield write
    finally:
        stdin.close()
        process.wait(30)
        stdout.close()
