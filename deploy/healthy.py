"""`healthy.py ADDRESS`: exits 0 if it answers. http://host:port/path with 200, or host:port with a connection.

The standard library alone, so that asking every ten seconds costs next to nothing.
"""

import socket
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 5

address = sys.argv[1]
try:
    if address.startswith("http://"):
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS):
            pass
    else:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), TIMEOUT_SECONDS).close()
except (OSError, urllib.error.URLError) as error:
    sys.exit(f"{address}: {error}")
