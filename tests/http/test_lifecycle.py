"""Starting, draining and closing."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from fake_service import FakeService
from front_end import SMALL, Running
from http_wire import request

from raftcache.http import HttpServer
from raftcache.ops import Op, Result


async def test_start_returns_the_real_port() -> None:
    server = HttpServer(FakeService(), SMALL, None)
    port = await server.start("127.0.0.1", 0)
    assert port > 0
    await server.close()


async def test_a_taken_port_is_an_os_error(http: Running) -> None:
    with pytest.raises(OSError):
        await HttpServer(FakeService(), SMALL, None).start("127.0.0.1", http.port)


async def test_draining_answers_what_is_in_flight_and_closes_behind_it(
    http: Running, server: HttpServer
) -> None:
    http.service.hold()
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", b"1", {}))
    await http.until(lambda: len(http.service.writes) == 1)
    draining = asyncio.create_task(server.drain(10))
    await http.until(lambda: server.draining)
    http.service.release()
    answer = await wire.answer()
    assert (answer.code, answer.headers["connection"]) == (201, "close")
    assert await wire.ended()
    await draining


async def test_draining_accepts_nobody_new(http: Running, server: HttpServer) -> None:
    await server.drain(1)
    with pytest.raises(OSError):
        await http.connect()


async def test_an_idle_connection_may_send_one_more_request_while_draining(
    http: Running, server: HttpServer
) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/healthz", None, {}))
    await wire.answer()
    draining = asyncio.create_task(server.drain(10))
    await http.until(lambda: server.draining)
    wire.send(request("GET", "/readyz", None, {}))
    answer = await wire.answer()
    assert (answer.code, answer.problem) == (503, "not-ready")
    assert answer.headers["connection"] == "close"
    await draining


async def test_idle_connections_do_not_hold_the_drain_up(http: Running, server: HttpServer) -> None:
    wire = await http.connect()
    wire.send(request("GET", "/healthz", None, {}))
    await wire.answer()
    await server.drain(0.02)
    assert await wire.ended()


async def test_what_is_not_answered_in_time_is_cut_off(http: Running, server: HttpServer) -> None:
    http.service.hold()
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/k", b"1", {}))
    await http.until(lambda: len(http.service.writes) == 1)
    await server.drain(0.02)
    assert await wire.ended()


async def test_closing_twice_is_closing_once(http: Running, server: HttpServer) -> None:
    await server.close()
    await server.close()


async def test_a_bug_is_a_logged_500_problem_and_the_server_lives_on(
    http: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(op: Op) -> Result:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(http.service, "apply", broken)
        answer = await http.send("GET", "/v1/keys/k")
    assert (answer.code, answer.problem) == (500, "internal")
    assert b"injected" not in answer.body
    assert [entry["event"] for entry in logs] == ["request failed"]
    assert (await http.send("GET", "/v1/keys/k")).code == 404
