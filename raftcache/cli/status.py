"""``raftcache status``: who is there, who leads what, and how full the cache is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftcache.cli import client
from raftcache.cli.keys import Urls

if TYPE_CHECKING:
    from rich.table import Table

Status = Mapping[str, Any]
"""What a node answers to ``GET /v1/cluster``."""
ASK_AGAIN_S = 0.2
"""``--wait`` looks this often."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("status")(status)


def status(
    url: Urls = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what each node answers, as JSON.")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=0,
            help="Wait until nothing is wrong, at most so long, and show what is then.",
        ),
    ] = 0,
) -> None:
    """Show members, groups, leaders, terms, lag, memory and hit ratio.

    One node is asked for the members, then each of them for its own view.

    Exit status: 0 when every group has a leader and every member answers and is ready, 1 otherwise,
    3 when no node answers.
    """
    deadline = time.monotonic() + wait_s
    urls = client.base_urls(url)
    while True:
        try:
            asked = _ask(urls)
            nodes = views(asked)
            code = 0 if healthy(asked, nodes) else client.EXIT_NO
        except client.UnavailableError as error:
            code, said = client.EXIT_UNAVAILABLE, str(error)
        if code == 0 or time.monotonic() >= deadline:
            break
        time.sleep(ASK_AGAIN_S)
    if code == client.EXIT_UNAVAILABLE:
        typer.echo(f"raftcache status: {said}", err=True)
    elif as_json:
        typer.echo(json.dumps({"cluster": asked["cluster"], "nodes": nodes}, indent=2))
    else:
        _print(asked, nodes)
    raise typer.Exit(code)


def _ask(urls: Sequence[str]) -> Status:
    """What the first node that answers says of the cluster."""
    answer = client.request(urls, "GET", "/v1/cluster", timeout_s=3)
    if answer.status != 200:
        raise client.UnavailableError(f"{answer.url}: {answer.detail}")
    found: Status = answer.json
    return found


def healthy(asked: Status, nodes: Mapping[str, Status | None]) -> bool:
    """Whether every group has a leader, and every member answers and is ready."""
    led = all(group["leader"] is not None for group in asked["groups"])
    return led and all(view is not None and view["ready"] for view in nodes.values())


def views(asked: Status) -> dict[str, Status | None]:
    """What each member says of the cluster; ``None``: it does not answer."""
    found: dict[str, Status | None] = {}
    for member in asked["members"]:
        if member["self"]:
            found[member["id"]] = asked
            continue
        try:
            answer = client.ask(f"http://{member['http']}", "GET", "/v1/cluster", timeout_s=2)
            found[member["id"]] = answer.json if answer.status == 200 else None
        except (client.UnavailableError, client.OutcomeUnknownError, ValueError):
            found[member["id"]] = None
    return found


def _print(asked: Status, nodes: Mapping[str, Status | None]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(f"[bold]{asked['cluster']}[/bold], seen from {asked['node']}\n")
    console.print(members_table(asked, nodes))
    console.print(groups_table(asked, nodes, wide=console.width >= 110))


def table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """An empty table whose columns are aligned to the left and to the right."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in left:
        made.add_column(heading, no_wrap=True)
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def members_table(asked: Status, nodes: Mapping[str, Status | None]) -> Table:
    """A line for each member."""
    made = table("Members", ("member", "http", "state", "leads"), ("replicas", "keys", "memory"))
    for member in asked["members"]:
        name = member["id"]
        view = nodes[name]
        led = [str(group["id"]) for group in asked["groups"] if group["leader"] == name]
        leads = ", ".join(led) if len(led) <= 6 else f"{len(led)} groups"
        if view is None:
            made.add_row(name, member["http"], "[red]no answer[/red]", leads, "", "", "")
            continue
        held = [group for group in view["groups"] if name in group["replicas"]]
        made.add_row(
            name,
            member["http"],
            _state(view),
            leads or "-",
            str(len(held)),
            f"{sum(group['entries'] for group in held):,}",
            size(sum(group["bytes"] for group in held)),
        )
    return made


def _state(view: Status) -> str:
    if not all(group.get("has_room", True) for group in view["groups"]):
        return "[red]disk full[/red]"
    return "[green]ready[/green]" if view["ready"] else "[yellow]not ready[/yellow]"


def groups_table(asked: Status, nodes: Mapping[str, Status | None], *, wide: bool) -> Table:
    """A line for each group, as its leader sees it when that answers."""
    more = ("commit", "slots") if wide else ()
    right = ("term", *more, "keys", "memory", "evicted", "expired", "hit ratio")
    made = table("Groups", ("group", "leader", "replicas (lag)"), right)
    for own in asked["groups"]:
        group = _view_of(nodes.get(own["leader"] or ""), own["id"]) or own
        reads = group["hits"] + group["misses"]
        made.add_row(
            str(group["id"]),
            group["leader"] or "[red]none[/red]",
            ", ".join(_lag(nodes.get(name), group["id"], name) for name in group["replicas"]),
            str(group["term"]),
            *([f"{group['commit_index']:,}", f"{group['slots']:,}"] if wide else ()),
            f"{group['entries']:,}",
            f"{percent(group['bytes'], group['budget_bytes'])} of {size(group['budget_bytes'])}",
            f"{group['evictions']:,}",
            f"{group['expirations']:,}",
            percent(group["hits"], reads),
        )
    return made


def _view_of(view: Status | None, group: int) -> Status | None:
    found = (each for each in view["groups"] if each["id"] == group) if view else iter(())
    return next(found, None)


def _lag(view: Status | None, group: int, name: str) -> str:
    """``n2 (17)``: the replica and how many entries it lags, when it does."""
    own = _view_of(view, group)
    if own is None:
        return f"[red]{name} (?)[/red]"
    return f"{name} ({own['lag']:,})" if own["lag"] else name


def size(count: float) -> str:
    """Bytes, rounded for reading."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def percent(part: float, whole: float) -> str:
    """A share, rounded for reading."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
