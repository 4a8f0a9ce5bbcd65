"""What PySyncObj is made with: its base classes, filled in. Part of ``engine``; apart from it since
a compiled class cannot have a base that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pysyncobj.node import Node
from pysyncobj.transport import Transport


class CoreNode(Node):  # type: ignore[misc]
    """A member. Hashes by its position, so that PySyncObj's sets of nodes have the same order
    always."""

    def __init__(self, id: str, position: int) -> None:
        super().__init__(id)
        self._position = position

    def __hash__(self) -> int:
        return self._position

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.id == other.id


class Outlet(Transport):  # type: ignore[misc]
    """PySyncObj's view of the transport: hands everything it sends to ``outgoing``."""

    def __init__(self, outgoing: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(None, None, None)
        self.outgoing = outgoing

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self.outgoing(node.id, message)
        return True

    def dropNode(self, node: Node) -> None:  # noqa: N802
        pass

    def addNode(self, node: Node) -> None:  # noqa: N802
        pass

    def destroy(self) -> None:
        pass
