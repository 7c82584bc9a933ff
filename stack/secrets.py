"""The passwords of a state folder: generated once, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def passwords(file: Path, roles: Iterable[str]) -> dict[str, str]:
    """A password for each role, from the file or new; the file is written before anything uses them."""
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    missing = [role for role in roles if role not in known]
    if missing:
        known |= {role: secrets.token_urlsafe(24) for role in missing}
        draft = file.with_suffix(".new")
        draft.touch(mode=0o600)
        with draft.open("w") as handle:
            json.dump(known, handle, indent=2)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(file)
    return known
