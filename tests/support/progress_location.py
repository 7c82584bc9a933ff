"""A code location whose one job says something, in a process that logs as ours do."""

from __future__ import annotations

import dagster as dg

import electrored_dagster.code_location  # noqa: F401  for how the process logs
from observability import logs


@dg.op
def say() -> None:
    logs.get("tests").info("said", password="hush")


@dg.job(executor_def=dg.in_process_executor)
def saying() -> None:
    say()


definitions = dg.Definitions(jobs=[saying])
