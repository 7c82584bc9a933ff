"""A platform for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.command import (
    Platform,
    new_platform,
    remove,
)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Up and detached for the tests of a module, down for those of others; only the tests sell."""
    made = new_platform()
    try:
        made.up("--no-simulate")
        yield made
    finally:
        remove(made)
