"""Ports of nodes that may be started again."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raftcache import ports


def test_ports_are_different_free_and_never_those_of_outgoing_connections() -> None:
    lowest_outgoing = int(ports.OUTGOING_PORTS.read_text().split()[0])
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert max(found) < lowest_outgoing
    for port in found[:3]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_a_port_in_use_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (taken,) = ports.free_ports(1)
    monkeypatch.setattr(ports, "LOWEST_PORT", taken)
    limit = tmp_path / "ip_local_port_range"
    limit.write_text(f"{taken + 1}\t60999\n")
    monkeypatch.setattr(ports, "OUTGOING_PORTS", limit)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        # From 1,000 below: the taken one is a candidate, one of the last.
        monkeypatch.setattr(ports.random.SystemRandom, "shuffle", lambda self, x: x.reverse())
        (other,) = ports.free_ports(1)
    assert other < taken


def test_too_few_ports_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "ip_local_port_range"
    limit.write_text("10010\t60999\n")
    monkeypatch.setattr(ports, "OUTGOING_PORTS", limit)
    monkeypatch.setattr(ports.socket.socket, "bind", _refuse)
    with pytest.raises(ports.PortsError, match="no 3 free ports"):
        ports.free_ports(3)


def _refuse(*address: object) -> None:
    raise OSError("address already in use")
