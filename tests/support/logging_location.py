"""A code location whose one job logs a line, in a process that logs as ours do."""

from __future__ import annotations

import dagster as dg

import electrored_dagster.code_location  # noqa: F401  for how the process logs
from observability import logs


@dg.op
def log_line() -> None:
    logs.get("tests").info("a line", password="hush")


@dg.job(executor_def=dg.in_process_executor)
def logging_job() -> None:
    log_line()


definitions = dg.Definitions(jobs=[logging_job])
