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
    """The API's answer. Raises StackError with its `detail`, or when it does not answer."""
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
        body: dict[str, Any] = answer.json()
        if answer.status_code == httpx.codes.OK:
            return body
        detail = body["detail"]
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{api_url} answers {answer.status_code} with a body that is not the API's",
            "is that its address? `electrored env`",
        ) from error
    raise StackError(detail, "use the full dataset name, e.g. results.public.top_sales_by_city")


def tree(answer: Mapping[str, Any], *, deciding: bool) -> Tree:
    """For a terminal: what a value is made of, and with `deciding` also what selects, groups or orders it."""
    step = answer["step"]
    top = Tree(f"[bold]{_place(step)}[/]")
    upstream = answer["direction"] == "upstream"
    _grow(top, step, ("decided by" if upstream else "decides over") if deciding else None)
    return top


def _grow(branch: Tree, step: Mapping[str, Any], decision: str | None) -> None:
    direct = [one for one in step["next"] if _is_direct(one)]
    for one in direct:
        shown = [each for each in one["transformations"] if decision or each["type"] == "DIRECT"]
        how = ", ".join(map(_transformation, shown))
        label = escape(" · ".join(filter(None, (how, one["job"]))))
        _grow(branch.add(f"{_place(one)}  [dim]{label}[/]"), one, decision)
    if decision is None:
        return

    # Columns that only decide over it are one line for each job: the tree ends there.
    deciding: dict[str, dict[str, list[str]]] = {}
    for one in step["next"]:
        if not _is_direct(one):
            kinds = ", ".join(
                sorted({transformation["subtype"].lower() for transformation in one["transformations"]})
            )
            columns = deciding.setdefault(one["job"], {}).setdefault(one["name"], [])
            columns.append(f"{one['column']} ({kinds})")
    for job, places in deciding.items():
        named = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in places.items())
        branch.add(f"[dim]{escape(f'{decision} {named} · {job}')}[/]")


def _is_direct(step: Mapping[str, Any]) -> bool:
    transformations = step["transformations"]
    return not transformations or any(one["type"] == "DIRECT" for one in transformations)


def _transformation(transformation: Mapping[str, str]) -> str:
    description = f" ({transformation['description']})" if transformation["description"] else ""
    return f"{transformation['subtype'].lower().replace('_', ' ')}{description}"


def _place(step: Mapping[str, Any]) -> str:
    column = f".[bold cyan]{escape(step['column'])}[/]" if step["column"] else ""
    return f"{escape(step['name'])}{column}  [dim]{escape(step['namespace'])}[/]"
