"""Keys of groups, over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from streaming.engine.pipeline import Pipeline
from streaming.engine.windows import from_micros


def key_maker(pipeline: Pipeline) -> Callable[[Mapping[str, Any]], bytes]:
    """The function from a group's fields to its key, as `columns.keys.group_keys` has it."""

    def key_of(group: Mapping[str, Any]) -> bytes:
        start = "" if pipeline.calendar is None else _start(group["window_start"])
        parts = [group[name].replace("\\", "\\\\").replace("|", "\\|") for name in pipeline.group_by]
        return "|".join([start, *parts]).encode()

    return key_of


@lru_cache(4_096)
def _start(micros: int) -> str:
    return from_micros(micros).replace(tzinfo=None, microsecond=0).isoformat() + "Z"
