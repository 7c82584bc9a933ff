"""`python -m observability.letters`: the newest dead letters, from `observer.dead_letters`."""

from __future__ import annotations

import typer

from observer.dead_letters import main

if __name__ == "__main__":
    typer.run(main)
