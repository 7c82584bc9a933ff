"""Rows 30 to 32: the days of every zone, rules that change under a living generation, and how long a grace may be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from pydantic import ValidationError

from contracts.calendar import LAST_DAY, MOST_GRACE, Calendar, Window, checked_grace, grace_of
from contracts.settings import WindowSettings
from contracts.zones import ZoneRules, _of_machine, known_zone
from streaming.engine.windows import from_micros, to_micros
from tests.support.python_process import run_python

DAY = timedelta(days=1)


def distinct_zones() -> list[str]:
    """One name for each set of rules."""
    named: dict[bytes, str] = {}
    for name in sorted(available_timezones()):
        for folder in ("/usr/share/zoneinfo", str(resources.files("tzdata") / "zoneinfo")):
            file = Path(folder, name)
            if file.is_file():
                named.setdefault(file.read_bytes(), name)
                break
    return sorted(set(named.values()))


def test_row_31_the_days_of_all_zones_sum_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours touch, none overlap, and a moment is in the window of the date that the zone's clocks show."""
    zones = distinct_zones()
    assert len(zones) > 300
    # By then every zone repeats itself.
    monkeypatch.setattr("contracts.zones._LAST", date(2041, 1, 1).toordinal())
    left_out = {}
    for name in zones:
        rules, zone = _of_machine.__wrapped__(name), ZoneInfo(name)
        calendar = Calendar("1-day", name, rules)
        # Where the offset stays, a day is 24 hours; so what has to be looked at is where it changes.
        turns = [date.fromordinal(day) for day in rules.days[1:]]
        for turn in (turn for turn in turns if 1900 < turn.year < 2040):
            days = [calendar.window_of(turn + DAY * number) for number in (-2, -1, 0, 1)]
            assert all(before.end == after.start for before, after in pairwise(days)), (name, turn)
            assert all(day.start <= day.end for day in days), (name, turn)
            for number, day in zip((-2, -1, 0, 1), days, strict=True):
                if day.start == day.end:
                    left_out[name, (turn + DAY * number).isoformat()] = day
                    continue
                begins = day.start.astimezone(zone)
                last = (day.end - timedelta(microseconds=1)).astimezone(zone)
                assert begins.date() == turn + DAY * number, (name, turn)
                # Clocks that go back over midnight show the day before again, for a moment of this window.
                assert last.date() in (begins.date(), begins.date() + DAY), (name, turn)
    assert {zone for zone, day in left_out if day == "2011-12-30"} >= {"Pacific/Apia", "Pacific/Fakaofo"}
    skip = datetime(2011, 12, 30, 10, tzinfo=UTC)
    assert left_out["Pacific/Apia", "2011-12-30"] == Window(skip, skip)


@pytest.mark.parametrize("zone", ["Pacific/Apia", "America/Sao_Paulo", "Africa/Casablanca", "Asia/Tehran"])
@pytest.mark.parametrize("kind", ["1-day", "30-days", "calendar-month"])
def test_row_31_every_moment_is_in_one_window(kind: str, zone: str) -> None:
    calendar = Calendar(kind, zone)  # type: ignore[arg-type]
    moment = datetime(2009, 1, 1, 0, 0, tzinfo=UTC)
    while moment.year < 2013:
        window = calendar.window_at(moment)
        assert window.start <= moment < window.end
        assert calendar.window_at(window.end).start == window.end
        moment = max(moment + timedelta(hours=7), window.end - timedelta(microseconds=1))
    days = calendar.days(datetime(2011, 12, 29, 12, tzinfo=UTC), datetime(2011, 12, 31, 12, tzinfo=UTC))
    assert ("2011-12-30" in days) == (kind == "1-day" and zone != "Pacific/Apia")


ZONE = """
Rule Test 2000 max - Mar lastSun 1:00u 1:00 S
Rule Test 2000 {until} - Oct lastSun 1:00u 0 -
Zone Test/Town 1:00 Test CE%sT
"""
# Summer time was given up in 2026: from the last Sunday of October 2025 on it is always winter.
GIVEN_UP = """
Rule Test 2000 2025 - Mar lastSun 1:00u 1:00 S
Rule Test 2000 2025 - Oct lastSun 1:00u 0 -
Zone Test/Town 1:00 Test CE%sT
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of zone files, as two releases of tzdata would make them."""
    zic = shutil.which("zic") or "/usr/sbin/zic"
    folders = {}
    for release, text in (("old", ZONE.format(until="max")), ("new", GIVEN_UP)):
        folder = tmp_path_factory.mktemp(release)
        source = folder / "rules"
        source.write_text(text)
        subprocess.run([zic, "-b", "fat", "-d", str(folder / "zones"), str(source)], check=True)
        folders[release] = folder / "zones"
    return folders


_CODE = """
import json, sys
from datetime import date
from contracts.zones import ZoneRules
from streaming.engine.pipeline import Parameters
made = sys.stdin.read()
row = {"time_zone": "Test/Town", "grace_seconds": 3600, "calendar": "1-day"}
parameters = Parameters.from_json(row, made or None)
window = parameters.windows.window_of(date(2026, 7, 1))
print(json.dumps({
    "rules": parameters.windows.zone.to_json(), "start": window.start.isoformat(), "is_outdated": parameters.is_outdated
}))
"""


def on_machine(zones: Path, made: str = "") -> dict[str, object]:
    """What a process there makes of a generation with these rules."""
    done = run_python("-c", _CODE, input=made, env={**os.environ, "PYTHONTZPATH": str(zones)}, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_row_30_a_generation_counts_alike_on_machines_with_different_rules(compiled: dict[str, Path]) -> None:
    old, new = on_machine(compiled["old"]), on_machine(compiled["new"])
    assert (old["start"], new["start"]) == ("2026-06-30T22:00:00+00:00", "2026-06-30T23:00:00+00:00")
    for name, machine in compiled.items():
        same = on_machine(machine, str(old["rules"]))
        assert (same["start"], same["rules"]) == (old["start"], old["rules"])
        assert same["is_outdated"] == (name == "new"), "a replay is asked for where other rules hold"


def test_row_30_a_machine_that_does_not_know_the_zone_goes_on_too(compiled: dict[str, Path]) -> None:
    made = ZoneRules.from_json(str(on_machine(compiled["old"])["rules"]))
    assert not made.is_current
    window = Calendar("1-day", "Test/Town", made).window_of(date(2026, 7, 1))
    assert window.start == datetime(2026, 6, 30, 22, tzinfo=UTC)


def test_rules_are_kept_as_they_are() -> None:
    rules = ZoneRules.of_machine("Africa/Casablanca")
    again = ZoneRules.from_json(rules.to_json())
    assert (again, again.fingerprint) == (rules, rules.fingerprint)
    assert ZoneRules.of_machine("UTC").fingerprint != rules.fingerprint


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/Berlim", "../etc/passwd", "/etc/localtime", "Europe/Berlin\0"]
)
def test_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        known_zone(name)


@pytest.mark.parametrize(
    "seconds", [3e11, 1e300, float("inf"), float("-inf"), float("nan"), -1, -1e-6, 366 * 86_400 + 1]
)
def test_row_32_a_grace_is_bounded(seconds: float) -> None:
    with pytest.raises(ValueError, match="a grace is at least 0 and at most 31622400 seconds"):
        grace_of(seconds)


@pytest.mark.parametrize("seconds", [0, 0.5, 3600, 366 * 86_400])
def test_row_32_the_last_window_and_any_grace_are_moments(seconds: float) -> None:
    end = Calendar("calendar-month", "Pacific/Apia").window_of(LAST_DAY - DAY).end
    assert from_micros(to_micros(end + grace_of(seconds))) == end + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["3e11", "300000000000", "-1", "nan", "inf", "P10000D", "-PT1H", "PT", "1 year", "367 days", "9" * 30],
)
def test_row_32_a_setting_is_bounded_too(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRORED_GRACE", text)
    with pytest.raises(ValidationError):
        WindowSettings()


@pytest.mark.parametrize(
    ("text", "seconds"), [("1:30:00", 5400), ("PT1H30M", 5400), ("P366D", 366 * 86_400), ("PT0S", 0)]
)
def test_a_grace_is_a_duration(text: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRORED_GRACE", text)
    assert WindowSettings().grace == timedelta(seconds=seconds) == checked_grace(timedelta(seconds=seconds))
    assert WindowSettings().grace <= MOST_GRACE
