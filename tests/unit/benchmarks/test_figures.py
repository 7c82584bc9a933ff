"""Figures beside their targets."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.figures import Figure, at_least, at_most, not_measured, percentile, shown, table


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (0.995, 100), (1.0, 100), (0.001, 1)]
)
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(share: float, value: int) -> None:
    samples = list(range(1, 101))
    assert percentile(samples[::-1], share) == value


def test_a_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7.5], 0.99) == 7.5


def test_a_target_is_met_at_its_bound() -> None:
    assert at_most("p50", 50.0, "ms", 50.0).met
    assert not at_most("p50", 50.1, "ms", 50.0).met
    assert at_least("rows/s", 50_000, "1/s", 50_000).met
    assert not at_least("rows/s", 49_999, "1/s", 50_000).met
    assert at_least("rows/s", 1, "1/s", 383_000).target == "≥ 383,000"


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (99.44, "99.4"), (0.01234, "0.0123")])
def test_figures_are_shown_with_the_digits_that_mean_something(value: float, text: str) -> None:
    assert shown(value) == text


def test_what_could_not_be_measured_names_what_is_missing_and_is_not_missed() -> None:
    figure = not_measured("beside kcat", "≥ 0.5", "no kcat: install it")
    assert figure.met is None
    (row,) = _rows([figure])
    assert row == ["beside kcat", "–", "", "≥ 0.5", "no kcat: install it"]


def test_figures_with_a_target_come_first() -> None:
    figures = [Figure("rows", 1.0, "rows/s"), at_most("p50", 5.0, "ms", 4.0), at_most("p99", 5.0, "ms", 6.0)]
    assert [(row[0], row[-1]) for row in _rows(figures)] == [("p50", "missed"), ("p99", "met"), ("rows", "")]


def _rows(figures: list[Figure]) -> list[list[str]]:
    """The cells of the table as it is printed."""
    output = io.StringIO()
    Console(file=output, width=200).print(table(figures, ""))
    lines = [line for line in output.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
