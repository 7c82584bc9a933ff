"""What a person meets when the stack cannot go on: one clear line, and what to do."""

from __future__ import annotations


class StackError(Exception):
    """Something a person has to act on: `str` is the line, `remedy` what to do; shown without a traceback."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy
