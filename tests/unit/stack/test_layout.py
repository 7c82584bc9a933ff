"""The state folder: what is noted there, and that one command works on it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stack.errors import StackError
from stack.layout import FORMAT, LONGEST_SOCKET_PATH, Layout, Options
from stack.secrets import passwords


def test_options_are_read_back_as_they_were_noted(tmp_path: Path) -> None:
    options = Options(
        port_offset=100, simulate=False, history_days=3, detached=True, given={"kafka_bootstrap": "k:1"}
    )
    Layout(tmp_path).note(options)
    assert Layout(tmp_path).options() == options


def test_a_new_folder_has_no_options(tmp_path: Path) -> None:
    assert Layout(tmp_path / "new").options() is None


def test_state_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.record.write_text(f'{{"format": {FORMAT + 1}, "something": "of then"}}')
    with pytest.raises(StackError, match="written by a newer version"):
        layout.options()


def test_only_one_command_works_on_a_folder(tmp_path: Path) -> None:
    lock = Layout(tmp_path).lock()
    with pytest.raises(StackError, match="is up already"):
        Layout(tmp_path).lock()
    lock.release()
    Layout(tmp_path).lock().release()


def test_a_long_path_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    near, far = Layout(Path("/s")), Layout(tmp_path / ("long" * 40))
    assert near.socket == Path("/s/supervisor.sock")
    assert len(str(far.socket)) <= LONGEST_SOCKET_PATH
    assert far.socket != Layout(tmp_path / ("other" * 40)).socket


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot write to the state folder"):
        Layout(tmp_path / "file" / "state").create()


def test_passwords_are_made_once_and_only_we_read_them(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    first = passwords(file, ["a", "b"])
    second = passwords(file, ["a", "b", "c"])
    assert {role: second[role] for role in first} == first
    assert len({second["a"], second["b"], second["c"]}) == 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
