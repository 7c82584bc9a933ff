"""The configuration of a Prometheus that scrapes a stack, with the stack's ports, written to its state folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from stack.ports import LOOPBACK
from stack.programs import PROJECT, Program

OURS = PROJECT / "observability" / "prometheus"
TARGETS, RULES = "targets.json", "*.rules.yml"


def write(folder: Path, programs: Iterable[Program]) -> None:
    """`prometheus.yml` and `targets.json`: `prometheus --config.file` needs nothing else."""
    config = (OURS / "prometheus.yml").read_text()
    # JSON's strings are YAML's.
    for name, place in ((TARGETS, folder / TARGETS), (RULES, OURS / RULES)):
        config = config.replace(json.dumps(name), json.dumps(str(place)))
    (folder / "prometheus.yml").write_text(config)
    (folder / TARGETS).write_text(json.dumps(targets(programs), indent=1))


def targets(programs: Iterable[Program]) -> list[dict[str, object]]:
    """As Prometheus reads them from a file; `process` is what alerts and dashboards call a target."""
    return [
        {"targets": [f"{LOOPBACK}:{program.scraped_at}"], "labels": {"process": program.name}}
        for program in programs
        if program.scraped_at is not None
    ]
