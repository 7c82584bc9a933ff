"""The error of the stack that is shown to the user: one line, and what to do."""

from __future__ import annotations


class StackError(Exception):
    """An error that the user has to act on: `str` is the line, `remedy` what to do; shown without a traceback."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy
