"""What Dagster's code server and its runs load: the definitions, and the platform's logging.

`definitions` alone leaves logging as it is, for tests and other importers.
"""

from __future__ import annotations

import logging

from electrored_dagster.definitions import definitions as definitions
from observability import logs

logs.configure("dagster-code")
# The code server has a handler of its own, which would log each line once more, in another format and unmasked.
logging.getLogger("dagster").handlers.clear()
