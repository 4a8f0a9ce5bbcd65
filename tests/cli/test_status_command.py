"""``raftcache status``: what it says of a node."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from raftcache.cli.status import members_table


@pytest.mark.parametrize(
    ("ready", "has_room", "shown"),
    [
        (True, (True, True), "ready"),
        (False, (True, True), "not ready"),
        (True, (True, False), "disk full"),
        (False, (False, False), "disk full"),
    ],
)
def test_a_member_is_ready_or_not_or_its_disk_is_full(
    ready: bool, has_room: tuple[bool, ...], shown: str
) -> None:
    groups = [
        {"id": i, "leader": "n1", "replicas": ["n1"], "entries": 1, "bytes": 1, "has_room": room}
        for i, room in enumerate(has_room)
    ]
    member = {"id": "n1", "http": "127.0.0.1:8001", "self": True}
    view: dict[str, Any] = {"members": [member], "groups": groups, "ready": ready}
    console = Console(file=io.StringIO(), width=120)
    console.print(members_table(view, {"n1": view}))
    assert isinstance(console.file, io.StringIO)
    line = next(li for li in console.file.getvalue().splitlines() if "n1" in li)
    assert line.split("127.0.0.1:8001")[1].split("  ")[1].strip() == shown
