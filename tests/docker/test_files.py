"""The compose file's settings are ones that a node accepts. (No container is started.)"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftcache.config import load

DOCKER = Path(__file__).parents[2] / "docker"
NODES = ("n1", "n2", "n3", "n4", "n5")


def services() -> dict[str, Any]:
    """Service name -> what the compose file says of it."""
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return found


def environment(service: str) -> dict[str, str]:
    """A service's environment, where no variable is set."""
    given = services()[service]["environment"]
    return {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in given.items()}


def image_environment() -> dict[str, str]:
    """What the image itself sets."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    last_stage = text[text.rindex("\nFROM ") :]
    lines = [line for line in last_stage.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split()[1:])


@pytest.mark.parametrize("service", NODES)
def test_a_node_accepts_the_settings_of_the_compose_file(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (image_environment() | environment(service)).items():
        if name.startswith("RAFTCACHE_"):
            monkeypatch.setenv(name, value)
    settings = load({})
    assert settings.node == service
    assert settings.member_ids == NODES
    assert (settings.groups, settings.replication) == (8, 3)
    assert settings.http_listen == ("0.0.0.0", 8000)
    assert settings.secret


def test_each_node_has_its_own_ports_name_and_volume() -> None:
    for number, node in enumerate(NODES, 1):
        service = services()[node]
        published = [re.sub(r"\$\{\w+:-(\d+)\}", r"\1", port) for port in service["ports"]]
        assert published == [f"127.0.0.1:800{number}:8000", f"127.0.0.1:638{number}:6379"]
        assert service["networks"]["peers"]["aliases"] == [f"{node}.peers"]
        assert service["volumes"] == [f"{node}:/data"]


def test_the_readme_names_every_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    table = (DOCKER / "README.md").read_text().partition("## Variables")[2]
    assert used == set(re.findall(r"`((?:RAFTCACHE|PIP)_\w+)`", table))
