"""A measured figure, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """`target` is what the design asks for, in words; `met` is None where it asks for nothing.

    `value` is None where the machine lacks what it takes: `missing` says what.
    """

    name: str
    value: float | None
    unit: str
    target: str = ""
    met: bool | None = None
    missing: str = ""


def at_most(name: str, value: float, unit: str, limit: float) -> Figure:
    return Figure(name, value, unit, f"≤ {shown(limit)}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float) -> Figure:
    return Figure(name, value, unit, f"≥ {shown(limit)}", value >= limit)


def not_measured(name: str, target: str, missing: str) -> Figure:
    return Figure(name, None, "", target, missing=missing)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; no interpolation between samples."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: Sequence[Figure], machine: str) -> Table:
    """The figures, those with a target first. On a busy machine a missed target means little."""
    rows = Table(title="ElectroRed, measured", caption=machine)
    for name, justify in (
        ("what", "left"),
        ("figure", "right"),
        ("unit", "left"),
        ("target", "left"),
        ("", "left"),
    ):
        rows.add_column(name, justify=justify)  # type: ignore[arg-type]
    for with_target in (True, False):
        for figure in figures:
            if bool(figure.target) is with_target:
                verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: escape(figure.missing)}
                cells = (figure.name, shown(figure.value), figure.unit, figure.target)
                rows.add_row(*map(escape, cells), verdict[figure.met])
        rows.add_section()
    return rows
