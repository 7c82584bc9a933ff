"""The code location: everything that is defined under `defs/`."""

from __future__ import annotations

from pathlib import Path

import dagster as dg


@dg.definitions
def definitions() -> dg.Definitions:
    # Loose objects beside this function would be hidden without a word.
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
