"""Ports for processes that are started here, and perhaps again."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
LOWEST_PORT: Final = 10_000
OUTGOING_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Its first number is the lowest port the kernel gives to outgoing connections."""


class PortsError(Exception):
    """There are not so many free ports; the message says so."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now, all different, and below those that the kernel gives to
    outgoing connections: a node that is down for a while must find its port free when it comes
    back.

    Raises:
        PortsError: there are not so many.
    """
    try:
        first_outgoing = int(OUTGOING_PORTS.read_text().split()[0])
    except OSError:
        first_outgoing = 32768
    candidates = list(range(min(LOWEST_PORT, first_outgoing - 1000), first_outgoing))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    with ExitStack() as stack:
        for port in candidates:
            if len(found) == count:
                break
            probe = socket.socket()
            try:
                probe.bind((HOST, port))
            except OSError:
                probe.close()
            else:
                stack.enter_context(probe)
                found.append(port)
    if len(found) < count:
        raise PortsError(f"there are no {count} free ports on {HOST}")
    return found
