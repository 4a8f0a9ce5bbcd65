"""A node of PySyncObj as shipped: a ``ReplDict``, and a port of ours where it is asked.

``python -m jepsen_like.run.controls.stock_node CONFIG`` with ``Config`` as JSON. Everything of
PySyncObj is stock and has its default: its transport, its ticking thread, its elections, its
journal. Requests and answers are lines of JSON, a thread for each connection:

    {"op": "get", "key": "k", "patience_s": 1.0}              {"value": "v" or null}
    {"op": "set", "key": "k", "value": "v", "patience_s": 1}  {}, {"refused": "..."} or
    {"op": "pop", "key": "k", "patience_s": 1}                {"unknown": "..."}
    {"op": "status"}                                          {"ready": true, "leader": "n2"}
"""

from __future__ import annotations

import json
import logging
import socketserver
import sys
from dataclasses import dataclass
from typing import Any, Final, cast

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, SyncObjException
from pysyncobj.batteries import ReplDict
from pysyncobj.node import TCPNode

SURELY_NOT: Final = frozenset(
    {FAIL_REASON.QUEUE_FULL, FAIL_REASON.MISSING_LEADER, FAIL_REASON.REQUEST_DENIED}
)
"""What may be believed. PySyncObj calls other commands failed, too, that it carries out later; they
count as unknown here, so that a conviction is one for lost or stale data."""
BARRIER: Final = "\0barrier"


@dataclass(frozen=True, slots=True)
class Config:
    """``addresses``: node -> the address that identifies it, at which it listens. ``reaches``: node
    -> host, port to dial instead. ``barrier``: whether a read waits for a command of its own to be
    applied first, which makes it linearizable if the log is."""

    node: str
    addresses: dict[str, str]
    reaches: dict[str, tuple[str, int]]
    asked_at: tuple[str, int]
    barrier: bool
    journal: str | None
    dump: str | None
    compaction_entries: int | None


class Peer(TCPNode):  # type: ignore[misc]
    """A node that is dialled at another address than the one it is known by."""

    def __init__(self, address: str, reach: tuple[str, int]) -> None:
        super().__init__(address)
        self._reach = reach

    @property
    def ip(self) -> str:
        return self._reach[0]

    @property
    def port(self) -> int:
        return self._reach[1]


class Store:
    """The ``ReplDict`` of this node."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._values = ReplDict()
        given: dict[str, Any] = {"journalFile": config.journal, "fullDumpFile": config.dump}
        if config.compaction_entries is not None:
            given["logCompactionMinEntries"] = config.compaction_entries
        others = [
            Peer(address, config.reaches[node])
            for node, address in config.addresses.items()
            if node != config.node
        ]
        own = TCPNode(config.addresses[config.node])
        self._sync = SyncObj(own, others, SyncObjConf(**given), consumers=[self._values])

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._answer(request)
        except SyncObjException as error:
            reason = error.errorCode
            return {"refused" if reason in SURELY_NOT else "unknown": f"PySyncObj: {reason}"}

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        how = {"sync": True, "timeout": request.get("patience_s")}
        match request["op"]:
            case "get":
                if self._config.barrier:
                    self._values.pop(BARRIER, None, **how)
                return {"value": self._values.get(request["key"])}
            case "set":
                self._values.set(request["key"], request["value"], **how)
                return {}
            case "pop":
                return {"value": self._values.pop(request["key"], None, **how)}
            case "status":
                leader = self._sync.getStatus()["leader"]
                names = {address: node for node, address in self._config.addresses.items()}
                ready = self._sync.isReady() and leader is not None
                return {"ready": ready, "leader": leader and names[leader.address]}
        raise ValueError(request["op"])


class _Asked(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast(Server, self.server)
        for line in self.rfile:
            answer = server.store.answer(json.loads(line))
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Where the node is asked."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], store: Store) -> None:
        self.store = store
        super().__init__(address, _Asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""


def main(config: Config) -> None:
    """Run until killed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    store = Store(config)
    with Server((config.asked_at[0], config.asked_at[1]), store) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(Config(**json.loads(sys.argv[1])))
