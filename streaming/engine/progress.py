"""Progress: how far a step has come in one input partition, committed with the work that it covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True)
class Progress:
    """Where a step resumes, its deduplication state, and its counts since the generation began."""

    next_offset: int
    last_seq: Mapping[str, int] = field(default_factory=dict)
    watermarks: Mapping[str, datetime] = field(default_factory=dict)
    events: int = 0
    duplicates: int = 0
    late: int = 0
    dead: int = 0
    future: int = 0

    def to_record(self, topic_id: str) -> dict[str, Any]:
        """As the `progress` schema has it."""
        return {"topic_id": topic_id, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{name: value for name, value in record.items() if name != "topic_id"})


def progress_key(step: str, topic: str, partition: int) -> bytes:
    """Key of a progress record; its partition in the progress topic is the input partition."""
    return f"{step}/{topic}/{partition}".encode()
