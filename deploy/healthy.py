"""`healthy.py SIGN`: exits 0 if the sign is there, else with what is missing.

`http://host:port/path` answers with 200; `host:port` takes a connection; `connected:PORT`: this container has a
connection to that port of another; `changed:FOLDER`: a name in it was made or taken away in the last minute.
The standard library alone, so that asking every ten seconds costs next to nothing.
"""

import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 5
# Six times what lies between two files of the simulator.
UNCHANGED_SECONDS = 60
# As Linux has it in /proc/net/tcp: the fourth column of a connection that stands.
ESTABLISHED = "01"


def is_connected(port: int) -> bool:
    # One for IPv4, and one for IPv6 where there is that.
    for table in Path("/proc/net").glob("tcp*"):
        with table.open() as lines:
            next(lines)
            for line in lines:
                _, _, remote, state = line.split()[:4]
                if state == ESTABLISHED and int(remote.rpartition(":")[2], 16) == port:
                    return True
    return False


sign = sys.argv[1]
kind, _, rest = sign.partition(":")
try:
    if kind == "http":
        with urllib.request.urlopen(sign, timeout=TIMEOUT_SECONDS):
            pass
    elif kind == "connected":
        if not is_connected(int(rest)):
            sys.exit(f"no connection to port {rest}")
    elif kind == "changed":
        if (age := time.time() - Path(rest).stat().st_mtime) > UNCHANGED_SECONDS:
            sys.exit(f"{rest}: nothing came or went for {age:.0f} s")
    else:
        socket.create_connection((kind, int(rest)), TIMEOUT_SECONDS).close()
except (OSError, urllib.error.URLError) as error:
    sys.exit(f"{sign}: {error}")
