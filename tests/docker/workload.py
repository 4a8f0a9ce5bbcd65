"""Clients of every node, over HTTP and over Redis's protocol, whose history is judged."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, RedisError
from redis.retry import Retry

from jepsen_like.checkers.history import Operation
from tests.docker.cluster import NODES, Cluster

KEYS = 24
PATIENCE_S = 2.0
"""How long a client waits; the nodes are told to answer sooner."""
_PAUSE_S = 0.02
_PAUSE_AFTER_FAILURE_S = 0.2


class Refused(Exception):  # noqa: N818  (an outcome, not a mistake)
    """Surely not done."""


class Unknown(Exception):  # noqa: N818
    """Done, or not, or not yet."""


Invoke = Callable[[str, str, list[str]], Any]
"""Operation, key, arguments -> result; ``Refused``, ``Unknown``."""


class Workload:
    """Ten clients: two of each node. Registers are read and written, counters are increased."""

    def __init__(self, cluster: Cluster) -> None:
        self.history: list[Operation] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._name = secrets.token_hex(3)
        self._values = itertools.count()
        self._died: list[str] = []
        clients: list[tuple[str, Invoke]] = []
        for node in NODES:
            clients.append((node, over_http(cluster.http_port(node))))
            clients.append((node, over_resp(cluster.resp_port(node))))
        self._threads = [
            threading.Thread(target=self._run, args=(process, node, invoke), daemon=True)
            for process, (node, invoke) in enumerate(clients)
        ]
        self.acknowledged: Counter[str] = Counter()
        """Operations by the node that answered them."""

    def __enter__(self) -> Workload:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(4 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"
        assert not self._died, self._died

    def _run(self, process: int, node: str, invoke: Invoke) -> None:
        chance = random.Random(process)
        try:
            while not self._stop.is_set():
                failed = not self._one(process, node, invoke, chance)
                self._stop.wait(_PAUSE_AFTER_FAILURE_S if failed else _PAUSE_S)
        except Exception as error:
            self._died.append(f"client {process} of {node}: {error!r}")

    def _one(self, process: int, node: str, invoke: Invoke, chance: random.Random) -> bool:
        number = chance.randrange(KEYS)
        # Every fourth key is a counter.
        key = f"{self._name}-{number}"
        read = chance.random() < 0.5
        if read:
            op, args = "get", []
        elif number % 4 == 0:
            op, args = "incr", ["1"]
        else:
            op, args = "set", [str(next(self._values))]
        start = time.monotonic_ns()
        result, ok = None, None
        try:
            result, ok = invoke(op, key, args), True
        except Refused:
            ok = False
        except Unknown:
            pass
        end = time.monotonic_ns() if ok is not None else None
        arguments: tuple[Any, ...] = (1,) if op == "incr" else tuple(args)
        with self._lock:
            self.history.append(Operation(process, op, key, arguments, result, start, end, ok))
            if ok:
                self.acknowledged[node] += 1
        return bool(ok)


def over_http(port: int) -> Invoke:
    """A client that keeps its connection until something goes wrong with it."""
    held: list[http.client.HTTPConnection] = []

    def invoke(op: str, key: str, args: list[str]) -> Any:
        path = f"/v1/keys/{key}"
        method, path, body = {
            "get": ("GET", path, None),
            "set": ("PUT", path, args[0] if args else None),
            "incr": ("POST", f"{path}/incr", None),
        }[op]
        if not held:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            try:
                connection.connect()
            except OSError as error:
                raise Refused from error
            held.append(connection)
        try:
            held[0].request(method, f"{path}?timeout=1500ms", body=body)
            answer = held[0].getresponse()
            content = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            held.pop().close()
            raise Unknown from error
        if answer.will_close:
            held.pop().close()
        if answer.status == 503:
            raise Refused
        if answer.status == 504:
            raise Unknown
        if op == "get" and answer.status == 404:
            return None
        assert answer.status in (200, 201), (answer.status, content)
        if op == "set":
            return answer.status == 201
        return content if op == "get" else json.loads(content)["value"]

    return invoke


def over_resp(port: int) -> Invoke:
    """redis-py, told to try everything once."""
    client = redis.Redis(
        port=port,
        socket_timeout=PATIENCE_S,
        socket_connect_timeout=PATIENCE_S,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )

    def invoke(op: str, key: str, args: list[str]) -> Any:
        try:
            if op == "get":
                return client.get(key)
            if op == "incr":
                return client.incr(key)
            client.set(key, args[0])
            return None
        except ClusterDownError as error:
            raise Refused from error
        except RedisError as error:
            if isinstance(error.__cause__ or error.__context__, ConnectionRefusedError):
                raise Refused from error
            raise Unknown from error

    return invoke
