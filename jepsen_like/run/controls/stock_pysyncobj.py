"""The control: ``ReplDict`` of PySyncObj as shipped, one process a node (``stock_node``).

In memory (``--memory``) or with its journal and dump file (the default). ``--setting``:

- ``reads=local``, as ``ReplDict.get`` does it: whatever the node has. The default, ``barrier``, is
  kind: the node first waits for a command of its own to come back through the log, so that only
  what PySyncObj loses shows.
- ``compaction=N``: ``logCompactionMinEntries``, PySyncObj's own setting (default 5,000).
- ``network=netns``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import jepsen_like
from jepsen_like.run.controls.networks import chosen
from jepsen_like.run.controls.stock_node import Config
from jepsen_like.run.processes import PROCESS_FAULTS, ProcessSystem
from jepsen_like.run.proxy import ProxyNetwork
from jepsen_like.run.system import FaultKind, Options, Refused, StartError, Unknown
from jepsen_like.run.wire import Connection

STATUS_TIMEOUT_S: Final = 0.5


class Lines:
    """``wire.Parser`` of one line of JSON."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes, wanted: int) -> dict[str, Any] | None:
        """An object, when its line is complete."""
        del wanted
        self._buffer += data
        if not self._buffer.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(self._buffer)
        self._buffer = b""
        return answer


class StockClient:
    """Implements ``system.Client``."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = Connection(address, Lines)

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        """See ``system.Client``."""
        match op:
            case "get":
                return (await self.ask({"op": "get", "key": key}, timeout_s))["value"]
            case "set":
                await self.ask({"op": "set", "key": key, "value": args[0]}, timeout_s)
                return None
            case "del":
                answer = await self.ask({"op": "pop", "key": key}, timeout_s)
                return answer["value"] is not None
        raise ValueError(f"a ReplDict cannot {op}")

    async def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The node's answer. ``Refused`` and ``Unknown`` also when it says so."""
        line = json.dumps(request | {"patience_s": timeout_s}).encode() + b"\n"
        answer: dict[str, Any] = await self._connection.exchange(line, timeout_s)
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "unknown" in answer:
            raise Unknown(answer["unknown"])
        return answer

    async def close(self) -> None:
        """Drop the connection."""
        self._connection.abort()


class StockPySyncObj(ProcessSystem):
    """Implements ``system.System``."""

    name = "pysyncobj"
    operations = frozenset({"get", "set", "del"})
    protocols: tuple[str, ...] = ("lines",)
    services = ("peer", "lines")
    live = False
    staleness_ms: Mapping[str, tuple[int, ...]] = {}
    ttl_slack_ms = 0.0
    ttl_drift = 0.0

    def __init__(self, options: Options) -> None:
        super().__init__(options.nodes, chosen(options, ProxyNetwork))
        # No promise covers a disk that is lost; losing one's memory is usual without any.
        self.faults = (PROCESS_FAULTS - {FaultKind.WIPE}) | self.network.faults
        self.tolerated = (options.nodes - 1) // 2
        self._durable = options.durable
        reads = options.settings.get("reads", "barrier")
        if reads not in ("barrier", "local"):
            raise StartError(f"reads={reads}: it should be barrier or local")
        self._barrier = reads == "barrier"
        entries = options.settings.get("compaction")
        self._compaction_entries = None if entries is None else int(entries)

    def commands(self, node: str) -> Sequence[Sequence[str]]:
        """One process; PySyncObj's own files are in the node's directory."""
        net, journal = self.network, self.data(node) / "journal"
        config = Config(
            node=node,
            addresses={x: "{}:{}".format(*net.listen(x, "peer")) for x in self.nodes},
            reaches={x: net.reach(node, x, "peer") for x in self.nodes if x != node},
            asked_at=net.listen(node, "lines"),
            barrier=self._barrier,
            journal=str(journal) if self._durable else None,
            dump=str(self.data(node) / "dump") if self._durable else None,
            compaction_entries=self._compaction_entries,
        )
        module = "jepsen_like.run.controls.stock_node"
        return [[sys.executable, "-m", module, json.dumps(asdict(config))]]

    def environment(self, node: str) -> Mapping[str, str]:
        """Nodes run the code that is imported here."""
        source = str(Path(jepsen_like.__file__).parent.parent)
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}

    def supports(self, protocol: str, op: str) -> bool:
        del protocol
        return op in self.operations

    def connect(self, node: str, protocol: str) -> StockClient:
        del protocol
        return StockClient(self.network.client(node, "lines"))

    async def serves(self, node: str) -> bool:
        return bool((await self._status(node)).get("ready"))

    async def leaders(self) -> list[str]:
        """As the nodes say, those that most believe in first."""
        named = [(await self._status(node)).get("leader") for node in self.nodes]
        believed = [name for name in named if name is not None]
        return sorted(set(believed), key=lambda name: (-believed.count(name), name))

    async def _status(self, node: str) -> dict[str, Any]:
        client = StockClient(self.network.client(node, "lines"))
        try:
            return await client.ask({"op": "status"}, STATUS_TIMEOUT_S)
        except (Refused, Unknown):
            return {}
        finally:
            await client.close()


def pysyncobj(options: Options) -> StockPySyncObj:
    """``system.Factory``."""
    return StockPySyncObj(options)
