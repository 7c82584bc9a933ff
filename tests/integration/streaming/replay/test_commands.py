"""The commands: output, prompts and refusals for people; and the output for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from contracts.settings import ResultsDbSettings
from stack.embedded import Embedded
from streaming.replay import commands, retirement
from tests.support.results import BarrierHold, ResultsFixture, city

PIPELINE = "top-sales-by-city"
Run = Callable[..., Result]


@pytest.fixture
def filled(engine: object) -> ResultsFixture:
    filled = ResultsFixture(engine)  # type: ignore[arg-type]
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1"), city("Ulm", "2")])
    filled.write(2, [city("Berlin", "3"), city("Ulm", "2")])
    return filled


@pytest.fixture
def run(stack: Embedded, results_db: ResultsDbSettings, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(commands, "hold_at_barrier", BarrierHold())
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", stack.kafka.kafka_bootstrap)
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", stack.kafka.schema_registry_url)
    monkeypatch.setenv("ELECTRORED_RESULTS_DB_URL", results_db.results_db_url.get_secret_value())
    monkeypatch.setenv("COLUMNS", "200")

    def ran(*arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(commands.app, arguments, input=answer)

    return ran


def test_the_difference_is_shown_and_promotion_asked_for(filled: ResultsFixture, run: Run) -> None:
    no = run("promote", PIPELINE, "2", answer="n\n")
    assert no.exit_code == 1
    assert "2 groups compared: 0 added, 0 removed, 1 changed" in no.stdout
    assert filled.pointer() == (1, 1)
    yes = run("promote", PIPELINE, "2", "--approved-by", "Ada", answer="y\n")
    assert yes.exit_code == 0, yes.output
    assert "g2 is active (promotion 2); g1 is standby" in yes.stdout
    assert filled.pointer() == (2, 2)


def test_without_asking_for_those_who_say_yes(filled: ResultsFixture, run: Run) -> None:
    assert run("promote", PIPELINE, "2", "--yes").exit_code == 0
    assert run("rollback", PIPELINE, "--reason", "wrong", "--yes").exit_code == 0
    assert filled.pointer() == (1, 3)


def test_a_program_names_the_fingerprint_that_it_read(filled: ResultsFixture, run: Run) -> None:
    found = json.loads(run("diff", PIPELINE, "2", "--json").stdout)
    assert (found["changed"], found["before_total"], found["after_total"]) == (
        1,
        {"EUR": "3.0000"},
        {"EUR": "5.0000"},
    )
    stale = run("promote", PIPELINE, "2", "--fingerprint", "0" * 64)
    assert (stale.exit_code, stale.stderr.count("\n")) == (1, 1)
    assert stale.stderr.startswith("refused: the fingerprint is not that of the newest difference")
    assert run("promote", PIPELINE, "2", "--fingerprint", found["fingerprint"]).exit_code == 0
    assert filled.pointer() == (2, 2)


def test_the_csv_is_written_where_it_was_asked_for(filled: ResultsFixture, run: Run, tmp_path: Path) -> None:
    assert run("diff", PIPELINE, "2", "--csv", str(tmp_path / "d.csv")).exit_code == 0
    with (tmp_path / "d.csv").open(newline="") as file:
        assert [row["city"] for row in csv.DictReader(file)] == ["Berlin"]


def test_generations_are_listed_with_their_states(filled: ResultsFixture, run: Run) -> None:
    run("promote", PIPELINE, "2", "--yes")
    shown = run("generations").stdout
    assert "g2" in shown
    assert "standby" in shown
    listed = json.loads(run("generations", PIPELINE, "--json").stdout)
    assert [(row["number"], row["state"]) for row in listed] == [(2, "active"), (1, "standby")]
    assert run("generations", "nothing").stderr == "refused: there is no generation of nothing\n"


def test_the_former_standby_goes_with_the_next_promotion(
    filled: ResultsFixture, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for deleting: topics of the catalogue's own names are other tests' too."""
    gone: list[int] = []
    monkeypatch.setattr(retirement, "retire", lambda kafka, results, pipeline, number: gone.append(number))
    run("promote", PIPELINE, "2", "--yes")
    filled.generation(3, "candidate")
    assert "g1, the former standby, is retired" in run("promote", PIPELINE, "3", "--yes").stdout
    assert gone == [1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("diff", PIPELINE, "1"), "top-sales-by-city g1 is active: only a candidate or a standby"),
        (("diff", "nothing", "1"), "nothing has no generation 1: it has none at all"),
        (("promote", PIPELINE, "9", "--yes"), "top-sales-by-city has no generation 9"),
        (("rollback", PIPELINE, "--reason", "x", "--yes"), "top-sales-by-city has no standby to go back to"),
        (("retire", PIPELINE, "1", "--yes"), "top-sales-by-city g1 is active"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(
    filled: ResultsFixture, run: Run, arguments: tuple[str, ...], line: str
) -> None:
    before = filled.everything()
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"refused: {line}")
    assert refused.stderr.count("\n") == 1
    assert filled.everything() == before
