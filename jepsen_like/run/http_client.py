"""raftcache's HTTP API, as a client of a run asks it."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, Final
from urllib.parse import quote

from jepsen_like.run.http_answers import Answer, Answers
from jepsen_like.run.system import Refused, StorageFull, Unknown
from jepsen_like.run.wire import Connection

REMEMBERED: Final = 50_000
GRACE_S: Final = 0.2
"""The node is told to answer so much earlier than the client gives up."""


class Versions:
    """Which version a value came with, from all clients of a system. Values are unique, so one
    stands for the other."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def learn(self, key: str, value: str, tag: bytes | None) -> None:
        """``tag`` is the ETag that came with the value."""
        if tag is not None:
            self._known[key, value] = tag
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def of(self, key: str, value: str) -> bytes | None:
        """The ETag of a value."""
        return self._known.get((key, value))


class HttpClient:
    """Implements ``system.Client``."""

    def __init__(self, address: tuple[str, int], versions: Versions) -> None:
        self._connection = Connection(address, Answers)
        self._versions = versions
        self._host = f"Host: {address[0]}:{address[1]}\r\n".encode()

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        """See ``system.Client``."""
        path = "/v1/keys/" + quote(key, safe="")
        headers = f"Idempotency-Key: {once}\r\n".encode() if once is not None else b""
        match op:
            case "get":
                return await self._get(path, key, "", timeout_s)
            case "lease":
                return await self._get(path, key, "consistency=lease", timeout_s)
            case "stale":
                query = f"consistency=stale&max_staleness={args[0]}ms"
                return await self._get(path, key, query, timeout_s)
            case "set":
                answer = await self._write("PUT", path, "", args[0], timeout_s, headers)
                return self._stored(answer, key, args[0])
            case "ttl":
                query = f"ttl={args[1]}ms"
                answer = await self._write("PUT", path, query, args[0], timeout_s, headers)
                return self._stored(answer, key, args[0])
            case "cas":
                return await self._cas(path, key, args, timeout_s, headers)
            case "incr":
                query = f"by={args[0]}"
                answer = await self._write("POST", path + "/incr", query, "", timeout_s, headers)
                return None if answer.status == 409 else int(json.loads(answer.body)["value"])
            case "del":
                answer = await self._write("DELETE", path, "", "", timeout_s, headers)
                return answer.status == 204
            case "txn":
                return await self._txn(args, timeout_s, headers)
            case "batch":
                return await self._batch(args, timeout_s)
        raise ValueError(f"HTTP clients cannot {op}")

    async def close(self) -> None:
        """Drop the connection."""
        self._connection.abort()

    async def request(
        self, method: str, target: str, body: bytes, timeout_s: float, headers: bytes = b""
    ) -> Answer:
        """Any request. ``Refused``: no connection; ``Unknown``: no answer."""
        line = f"{method} {target} HTTP/1.1\r\n".encode()
        size = b"Content-Length: %d\r\n" % len(body) if body or method in ("PUT", "POST") else b""
        message = line + self._host + size + headers + b"\r\n" + body
        answer: Answer = await self._connection.exchange(message, timeout_s)
        if answer.headers.get(b"connection", b"").lower() == b"close":
            self._connection.abort()
        return answer

    async def _asked(
        self, method: str, path: str, query: str, body: bytes, timeout_s: float, headers: bytes
    ) -> Answer:
        """A request that the node is to answer in time; ``Refused`` and ``Unknown`` also when the
        node says so."""
        patience_ms = max(1, int((timeout_s - GRACE_S) * 1000))
        target = f"{path}?{query}{'&' if query else ''}timeout={patience_ms}ms"
        answer = await self.request(method, target, body, timeout_s, headers)
        if answer.status == 503:
            problem = answer.body.decode(errors="replace")
            full = json.loads(problem)["type"].endswith("storage-full")
            raise StorageFull(problem) if full else Refused(problem)
        if answer.status == 504:
            raise Unknown(answer.body.decode(errors="replace"))
        return answer

    async def _get(self, path: str, key: str, query: str, timeout_s: float) -> str | None:
        answer = await self._asked("GET", path, query, b"", timeout_s, b"")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise ValueError(f"{answer.status} {answer.body!r} to a GET")
        value = answer.body.decode()
        self._versions.learn(key, value, answer.headers.get(b"etag"))
        return value

    async def _write(
        self, method: str, path: str, query: str, value: str, timeout_s: float, headers: bytes
    ) -> Answer:
        answer = await self._asked(method, path, query, value.encode(), timeout_s, headers)
        if answer.status not in (200, 201, 204, 404, 409, 412):
            raise ValueError(f"{answer.status} {answer.body!r} to {method} {path}?{query}")
        return answer

    def _stored(self, answer: Answer, key: str, value: str) -> bool:
        if answer.status not in (200, 201):
            raise ValueError(f"{answer.status} {answer.body!r} to a PUT")
        self._versions.learn(key, value, answer.headers.get(b"etag"))
        return answer.status == 201

    async def _cas(
        self, path: str, key: str, args: tuple[Any, ...], timeout_s: float, headers: bytes
    ) -> bool:
        """By version: the one that came with ``expected``, after a read where none is known. A
        version that does not match is another value, since no value is written twice."""
        expected, new = args
        if expected is None:
            condition = b"If-None-Match: *\r\n"
        else:
            tag = self._versions.of(key, expected)
            if tag is None:
                if await self._get(path, key, "", timeout_s) != expected:
                    return False
                tag = self._versions.of(key, expected) or b"?"
            condition = b"If-Match: " + tag + b"\r\n"
        answer = await self._write("PUT", path, "", new, timeout_s, condition + headers)
        return False if answer.status == 412 else self._done(answer, key, new)

    def _done(self, answer: Answer, key: str, new: str) -> bool:
        self._stored(answer, key, new)
        return True

    async def _txn(self, micros: tuple[Any, ...], timeout_s: float, headers: bytes) -> list[Any]:
        operations = [_operation(*micro) for micro in micros]
        body = {"atomic": True, "operations": operations}
        results = await self._results(body, timeout_s, headers)
        for result in sorted(results, key=lambda x: -x["code"]):
            _checked(result)  # doubts first: then nobody knows of the others either
        found = [_meaning(x[0], result) for x, result in zip(micros, results, strict=True)]
        return [
            result if micro[0] in ("get", "incr") else None
            for micro, result in zip(micros, found, strict=True)
        ]

    async def _batch(self, parts: tuple[Any, ...], timeout_s: float) -> list[Any]:
        operations = [_operation(name, key, *args) for name, key, args in parts]
        answers = await self._results(operations, timeout_s, b"")
        results: list[Any] = []
        for (name, key, args), answer in zip(parts, answers, strict=True):
            try:
                result = _meaning(name, _checked(answer))
            except (Refused, Unknown) as error:
                result = error
            else:
                value = result if name == "get" else args[0] if name == "set" else None
                if value is not None:
                    self._versions.learn(key, value, b'"%d"' % answer["version"])
            results.append(result)
        return results

    async def _results(self, body: Any, timeout_s: float, headers: bytes) -> list[dict[str, Any]]:
        """How each operation of a batch ended."""
        packed = json.dumps(body).encode()
        answer = await self._asked("POST", "/v1/batch", "", packed, timeout_s, headers)
        if answer.status != 200:
            raise ValueError(f"{answer.status} {answer.body!r} to a batch")
        results: list[dict[str, Any]] = json.loads(answer.body)["results"]
        return results


def _operation(name: str, key: str, *args: Any) -> dict[str, Any]:
    """An operation as batches have it."""
    match name:
        case "get":
            return {"op": "get", "key": key}
        case "set":
            return {"op": "set", "key": key, "value": args[0]}
        case "incr":
            return {"op": "incr", "key": key, "by": args[0]}
        case "del":
            return {"op": "delete", "key": key}
    raise ValueError(f"HTTP batches cannot {name}")


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """The result of an operation of a batch, unless it was not done or nobody knows."""
    match result["code"]:
        case 504:
            raise Unknown(str(result))
        case 503 if result["status"] == "storage_full":
            raise StorageFull(str(result))
        case 503 | 424:
            raise Refused(str(result))
    return result


def _meaning(name: str, result: dict[str, Any]) -> Any:
    """What an operation of a batch found."""
    match name, result["code"]:
        case ("get", 200 | 404):
            return result.get("value")
        case ("set", (200 | 201) as code):
            return code == 201
        case ("incr", 200 | 201):
            return result["value"]
        case ("incr", 409):
            return None
        case ("del", (200 | 204 | 404) as code):
            return code != 404
    raise ValueError(f"{result} to a {name}")
