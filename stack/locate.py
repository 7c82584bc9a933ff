"""The stack of a state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.settings import StackSettings
from stack.errors import StackError
from stack.layout import Layout
from stack.programs import Platform
from stack.supervisor import Supervisor

StateDir = Annotated[
    Path, typer.Option("--state-dir", envvar="ELECTRORED_STATE_DIR", help="Where all state is kept.")
]
DEFAULT_STATE_DIR = Path(".electrored")


def layout_in(state_dir: Path) -> Layout:
    layout = Layout(state_dir)
    if not layout.folder.exists():
        raise StackError(
            f"no stack was ever started in {layout.folder}",
            "start one: electrored up; or name the folder of another one with --state-dir",
        )
    return layout


def platform_in(state_dir: Path) -> Platform:
    layout = layout_in(state_dir)
    options = layout.options()
    if options is None:
        raise StackError(f"nothing was started in {layout.folder} yet", "start it: electrored up")
    return Platform(layout, options, StackSettings.model_validate(options.given))


def running_in(state_dir: Path) -> Platform:
    """For commands that use Kafka, the results or the API. Raises StackError if they are ours and not up."""
    platform = platform_in(state_dir)
    is_elsewhere = {"kafka", "results"} <= set(platform.given)
    if not is_elsewhere and not Supervisor(platform.layout).is_running():
        raise StackError(f"the stack in {platform.layout.folder} is not up", "start it: electrored up")
    return platform
