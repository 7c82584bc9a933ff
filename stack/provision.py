"""`python -m stack.provision sales|results`: roles and databases on a running PostgreSQL server.

For containers: the embedded stack does the same in its own process.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from sqlalchemy import make_url

from contracts.settings import ServerSettings, from_environment
from stack import databases


def main(
    which: Annotated[Literal["sales", "results"], typer.Argument(help="What the server is for.")],
) -> None:
    """Bring roles, databases and tables of a server to what they should be; may run any number of times."""
    settings = from_environment(ServerSettings)
    server = make_url(settings.server_url.get_secret_value())
    passwords = {role: password.get_secret_value() for role, password in settings.role_passwords.items()}
    roles = databases.SALES_ROLES if which == "sales" else databases.RESULTS_ROLES
    if missing := [role for role in roles if role not in passwords]:
        raise SystemExit(f"error: ELECTRORED_ROLE_PASSWORDS: no password for {', '.join(missing)}")
    if which == "sales":
        databases.provision_sales_server(server, passwords)
    else:
        databases.provision_results_server(server, passwords)


if __name__ == "__main__":
    typer.run(main)
