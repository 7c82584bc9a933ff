"""`python -m benchmarks.imports`: modules, imports and circles by room, and the imports that go up."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import grimp
import typer

# From the ground up; rooms of one line are neighbours.
LAYERS = (
    ("contracts",),
    ("observability",),
    ("kafka_client",),
    ("lineage",),
    ("sources", "streaming", "api", "observer"),
    ("electrored_dagster",),
)
BESIDE = ("simulators", "stack")


def main() -> None:
    """Print a line for each room of this folder; rooms that it does not have are left out."""
    sys.path.insert(0, str(Path.cwd()))
    level = {room: number for number, layer in enumerate(LAYERS) for room in layer if Path(room).is_dir()}
    rooms = [*level, *(room for room in BESIDE if Path(room).is_dir())]
    graph = grimp.build_graph(*rooms, exclude_type_checking_imports=True)
    modules, lines = Counter[str](), Counter[str]()
    within, out, up = Counter[str](), Counter[str](), Counter[str]()
    for module in graph.modules:
        room = module.partition(".")[0]
        modules[room] += 1
        path = Path(module.replace(".", "/"))
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        lines[room] += len(file.read_text(encoding="utf-8").splitlines())
        for imported in graph.find_modules_directly_imported_by(module):
            other = imported.partition(".")[0]
            (within if other == room else out)[room] += 1
            if other != room and level.get(other, -1) >= level.get(room, len(LAYERS)):
                up[room] += 1
    typer.echo(f"{'room':20}{'modules':>9}{'lines':>8}{'inside':>8}{'out':>6}{'up':>5}{'circles':>9}")
    for room in rooms:
        circles = sum(len(circle) > 1 for circle in components(graph, room))
        typer.echo(
            f"{room:20}{modules[room]:>9}{lines[room]:>8}{within[room]:>8}{out[room]:>6}{up[room]:>5}{circles:>9}"
        )
    typer.echo(
        f"{'together':20}{modules.total():>9}{lines.total():>8}{within.total():>8}{out.total():>6}{up.total():>5}"
    )


def components(graph: grimp.ImportGraph, room: str) -> list[set[str]]:
    """Groups of modules of a room that reach one another; a group of more than one is a circle."""
    members = {module for module in graph.modules if module.partition(".")[0] == room}
    reach = {module: graph.find_downstream_modules(module) & members for module in members}
    left, groups = set(members), []
    while left:
        module = left.pop()
        group = {other for other in reach[module] & left if module in reach[other]} | {module}
        left -= group
        groups.append(group)
    return groups


if __name__ == "__main__":
    typer.run(main)
