"""The Avro schemas of the public topics, one file each."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def load(name: str) -> Any:
    """The schema in `<name>.avsc` as parsed JSON: a dict, or a list for a union."""
    return json.loads(files(__name__).joinpath(f"{name}.avsc").read_text(encoding="utf-8"))
