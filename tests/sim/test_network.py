"""Streams and their faults, as a protocol sees them."""

from __future__ import annotations

import asyncio

import pytest

from jepsen_like.sim.network import Cut

from .conftest import Recorder, World, link


def attempt(world: World, port: int, host: str = "b") -> list[object]:
    """Connect from ``a``; the list gets the protocol or the exception."""
    outcome: list[object] = []

    async def run() -> None:
        protocol = Recorder()
        try:
            await world.nodes["a"].connect(host, port, lambda: protocol)
        except OSError as error:
            outcome.append(error)
        else:
            outcome.append(protocol)

    world.nodes["a"].spawn(run(), "attempt")
    return outcome


def test_bytes_arrive_in_order_and_cut_anywhere(world: World) -> None:
    world.network.cut = 0.5
    client, server = link(world)
    assert client.transport and server.transport
    sent = bytes(range(256)) * 40
    for start in range(0, len(sent), 100):
        client.transport.write(sent[start : start + 100])
    world.run(1.0)
    assert server.data == sent
    assert 5 < server.pieces < 100  # neither one piece per write nor one in all
    assert server.transport.get_extra_info("peername")[0] == "a"
    assert client.transport.get_extra_info("peername")[0] == "b"


def test_close_delivers_what_was_written_and_ends_both_sides(world: World) -> None:
    client, server = link(world)
    assert client.transport and server.transport
    client.transport.write(b"last words")
    client.transport.close()
    assert client.transport.is_closing()
    client.transport.write(b"too late")
    world.run(1.0)
    assert server.data == b"last words"
    assert server.events == ["made", "eof", "lost"]
    assert client.events == ["made", "lost"]
    assert client.error is None and server.error is None
    assert world.network.connections == {}


def test_abort_resets_the_other_side(world: World) -> None:
    client, server = link(world)
    assert client.transport
    client.transport.abort()
    world.run(1.0)
    assert client.events == ["made", "lost"] and client.error is None
    assert isinstance(server.error, ConnectionResetError)


def test_a_full_window_pauses_the_writer_and_reading_resumes_it(world: World) -> None:
    client, server = link(world)
    assert client.transport and server.transport
    server.transport.pause_reading()
    client.transport.write(bytes(1_000_000))
    world.run(1.0)
    assert client.events == ["made", "pause"]
    assert client.transport.get_write_buffer_size() > 64 * 1024
    assert server.data == b""
    server.transport.resume_reading()
    world.run(1.0)
    assert client.events == ["made", "pause", "resume"]
    assert len(server.data) == 1_000_000
    assert client.transport.get_write_buffer_size() == 0


def test_connecting_where_nobody_listens_is_refused(world: World) -> None:
    outcome = attempt(world, 9)
    world.run(1.0)
    assert isinstance(outcome[0], ConnectionRefusedError)


def test_connecting_through_a_stalling_network_times_out_or_succeeds_when_it_heals(
    world: World,
) -> None:
    outcomes = []
    for healed in (False, True):
        world.network.partition([["a"], ["b", "c"]])
        outcome = attempt(world, 9)
        if healed:
            world.run(1.5)
            world.network.heal()
        world.run(30.0)
        outcomes.append(type(outcome[0]))
    assert outcomes == [TimeoutError, ConnectionRefusedError]


def test_a_partition_stalls_bytes_until_it_heals(world: World) -> None:
    client, server = link(world)
    assert client.transport
    world.network.partition([["a"], ["b", "c"]])
    client.transport.write(b"patience")
    world.run(5.0)
    assert server.data == b""
    world.network.heal()
    world.run(2.0)
    assert server.data == b"patience"
    assert client.events == ["made"]


def test_a_long_partition_kills_the_connection_of_whoever_has_something_to_send(
    world: World,
) -> None:
    client, server = link(world)
    assert client.transport and server.transport
    world.network.partition([["a"], ["b", "c"]])
    client.transport.write(b"never")
    world.run(world.network.tcp_timeout + 1.0)
    assert isinstance(client.error, TimeoutError)
    assert server.events == ["made"]  # half-open: the other side has not noticed
    world.network.heal()
    world.run(1.0)
    server.transport.write(b"hello?")
    world.run(1.0)
    assert isinstance(server.error, ConnectionResetError)
    assert server.data == b""


def test_a_rejecting_partition_resets_at_once_and_refuses_new_connections(world: World) -> None:
    client, server = link(world)
    world.network.partition([["a"], ["b"]], Cut.REJECT)
    outcome = attempt(world, 9)
    world.run(1.0)
    assert isinstance(client.error, ConnectionResetError)
    assert isinstance(server.error, ConnectionResetError)
    assert isinstance(outcome[0], OSError)


def test_a_one_way_cut_stops_one_direction_only(world: World) -> None:
    client, server = link(world)
    assert client.transport and server.transport
    world.network.block("b", "a")
    client.transport.write(b"there")
    server.transport.write(b"back")
    world.run(5.0)
    assert server.data == b"there"
    assert client.data == b""
    world.network.unblock(("b", "a"))
    world.run(2.0)
    assert client.data == b"back"
    assert client.events == server.events == ["made"]


def test_data_that_nobody_acknowledges_ends_the_connection_at_its_sender(world: World) -> None:
    client, server = link(world)
    assert client.transport
    world.network.block("b", "a")
    client.transport.write(b"there")
    world.run(world.network.tcp_timeout + 1.0)
    assert server.data == b"there"
    assert isinstance(client.error, TimeoutError)


def test_a_killed_process_closes_its_connections_and_its_sent_bytes_still_arrive(
    world: World,
) -> None:
    client, server = link(world)
    assert client.transport
    client.transport.write(b"testament")
    world.nodes["a"].process.crash()
    world.run(1.0)
    assert server.data == b"testament"
    assert server.events == ["made", "eof", "lost"]
    assert client.events == ["made"]  # the dead hear nothing


def test_after_a_power_failure_the_other_end_is_half_open_until_it_writes(world: World) -> None:
    _, server = link(world)
    assert server.transport
    world.nodes["a"].process.crash(power=True)
    world.run(60.0)
    assert server.events == ["made"]
    world.start("a")
    server.transport.write(b"still there?")
    world.run(1.0)
    assert isinstance(server.error, ConnectionResetError)


def test_bytes_of_an_old_connection_may_arrive_after_a_new_one_was_opened(world: World) -> None:
    old_client, old_server = link(world)
    assert old_client.transport
    world.network.delay("a", "b", 2.0)
    old_client.transport.write(b"old")
    world.nodes["a"].process.crash()
    world.network.delay("a", "b", 0.0)
    world.start("a")
    new_client, new_server = link(world)
    assert new_client.transport
    new_client.transport.write(b"new")
    world.run(0.1)
    assert (old_server.data, new_server.data) == (b"", b"new")
    world.run(5.0)
    assert old_server.data == b"old"


def test_a_receiver_that_closed_the_old_connection_never_gets_its_bytes(world: World) -> None:
    client, server = link(world)
    assert client.transport and server.transport
    world.network.delay("a", "b", 2.0)
    client.transport.write(b"old")
    server.transport.close()
    world.run(10.0)
    assert server.data == b""
    assert client.events[-1] == "lost"


def test_a_paused_process_reads_what_came_meanwhile_when_it_goes_on(world: World) -> None:
    client, server = link(world)
    assert client.transport
    world.nodes["b"].process.pause()
    client.transport.write(b"wake up")
    world.run(60.0)
    assert server.data == b"" and client.events == ["made"]
    world.nodes["b"].process.resume()
    world.run(0.1)
    assert server.data == b"wake up"


def test_loss_delays_but_never_reorders_or_loses(world: World) -> None:
    world.network.loss = 0.5
    client, server = link(world)
    assert client.transport
    for number in range(50):
        client.transport.write(bytes([number]))
    world.run(0.1)
    assert len(server.data) < 50
    world.run(60.0)
    assert server.data == bytes(range(50))


def test_a_healed_network_delivers_what_was_late_soon(world: World) -> None:
    client, server = link(world)
    assert client.transport
    world.network.delay("a", "b", 60.0)
    client.transport.write(b"late")
    world.run(1.0)
    world.network.heal()
    world.run(2.0)
    assert server.data == b"late"


def test_a_healed_network_lets_a_connection_be_opened_soon(world: World) -> None:
    """A SYN that was lost again and again is sent once more, as data is."""
    world.network.loss = 0.99
    opened: list[float] = []

    async def connect() -> None:
        await world.nodes["b"].listen("0.0.0.0", 7000, Recorder)
        await world.nodes["a"].connect("b", 7000, Recorder)
        opened.append(world.scheduler.now)

    world.nodes["a"].spawn(connect(), "connect")
    world.run(0.5)
    world.network.heal()
    world.run(1.1)
    assert opened


def test_a_listener_accepts_until_it_is_closed_and_its_port_is_its_own(world: World) -> None:
    async def run() -> None:
        node = world.nodes["b"]
        listener = await node.listen("0.0.0.0", 7000, Recorder)
        assert listener.port == 7000
        with pytest.raises(OSError, match="in use"):
            await node.listen("0.0.0.0", 7000, Recorder)
        first = attempt(world, 7000)
        await asyncio.sleep(1.0)
        listener.close()
        second = attempt(world, 7000)
        await asyncio.sleep(1.0)
        outcomes.append((type(first[0]), type(second[0])))

    outcomes: list[object] = []
    world.nodes["b"].spawn(run(), "listener")
    world.run(5.0)
    assert world.scheduler.violations == []
    assert outcomes == [(Recorder, ConnectionRefusedError)]
