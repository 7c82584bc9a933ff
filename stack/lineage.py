"""`electrored lineage`: the API's answer as a tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from rich.markup import escape
from rich.tree import Tree

from stack.errors import StackError

ANSWER_SECONDS = 10.0


def ask(api_url: str, dataset: str, direction: str) -> dict[str, Any]:
    """What the API says. Raises StackError with its reason, or when it does not answer."""
    try:
        answer = httpx.get(
            f"{api_url}/api/v1/lineage",
            params={"dataset": dataset, "direction": direction},
            timeout=ANSWER_SECONDS,
        )
    except httpx.HTTPError as error:
        raise StackError(
            f"the API at {api_url} does not answer: {error}", "is it up? `electrored status`"
        ) from error
    try:
        found: dict[str, Any] = answer.json()
        if answer.status_code == httpx.codes.OK:
            return found
        said = found["detail"]
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{api_url} answers {answer.status_code} with what is no answer of the API's",
            "is that its address? `electrored env`",
        ) from error
    raise StackError(said, "name it as a job does, or longer")


def tree(answer: Mapping[str, Any]) -> Tree:
    """For a terminal."""
    step = answer["step"]
    top = Tree(f"[bold]{_place(step)}[/]")
    _grow(top, step, "decided by" if answer["direction"] == "upstream" else "decides over")
    return top


def _grow(branch: Tree, step: Mapping[str, Any], decision: str) -> None:
    direct = [one for one in step["next"] if _is_direct(one)]
    for one in direct:
        made = ", ".join(_transformation(found) for found in one["transformations"])
        said = escape(" · ".join(filter(None, (made, one["job"]))))
        _grow(branch.add(f"{_place(one)}  [dim]{said}[/]"), one, decision)

    # What only decides over it is one line for each job: it leads nowhere further.
    deciding: dict[str, dict[str, list[str]]] = {}
    for one in step["next"]:
        if not _is_direct(one):
            kinds = ", ".join(sorted({found["subtype"].lower() for found in one["transformations"]}))
            columns = deciding.setdefault(one["job"], {}).setdefault(one["name"], [])
            columns.append(f"{one['column']} ({kinds})")
    for job, places in deciding.items():
        named = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in places.items())
        branch.add(f"[dim]{escape(f'{decision} {named} · {job}')}[/]")


def _is_direct(step: Mapping[str, Any]) -> bool:
    made = step["transformations"]
    return not made or any(found["type"] == "DIRECT" for found in made)


def _transformation(found: Mapping[str, str]) -> str:
    said = f" ({found['description']})" if found["description"] else ""
    return f"{found['subtype'].lower().replace('_', ' ')}{said}"


def _place(step: Mapping[str, Any]) -> str:
    column = f".[bold cyan]{escape(step['column'])}[/]" if step["column"] else ""
    return f"{escape(step['name'])}{column}  [dim]{escape(step['namespace'])}[/]"
