"""Runs as children of the code server, with a health check for run monitoring."""

from __future__ import annotations

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value


class CodeServerRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher with run worker health checks.

    The code server reports a child that dies. Only a run whose server died with it stays STARTED for ever and keeps its
    pool: it is unknown to the next server, so run monitoring fails it.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING if the code server has the run. Raises if none answers: run monitoring checks again."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "the run was never launched on a code server")
        current = deserialize_value(client.get_current_runs(), GetCurrentRunsResult)
        if run.run_id in current.current_runs:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, "its worker is gone: the code server was started anew"
        )
