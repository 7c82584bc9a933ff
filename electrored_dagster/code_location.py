"""What Dagster's code server and its runs load: the definitions, in a process that logs as every other one of ours.

Only they load it. `definitions` leaves logging alone, for whoever imports it without being such a process.
"""

from __future__ import annotations

import logging

from electrored_dagster.definitions import definitions as definitions
from observability import logs

logs.configure("dagster-code")
# The code server has one for itself, which would say each line once more, in another form and without a mask.
logging.getLogger("dagster").handlers.clear()
