"""The code location: everything that is defined under `defs/`."""

from __future__ import annotations

from pathlib import Path

import dagster as dg


@dg.definitions
def definitions() -> dg.Definitions:
    # Dagster silently ignores definitions beside this function.
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
