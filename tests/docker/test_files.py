"""The compose file's settings are ones that a node accepts. (No container is started.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raftcache.config import load

DOCKER = Path(__file__).parents[2] / "docker"


def environments() -> dict[str, dict[str, Any]]:
    """Service name -> its environment, as compose would pass it."""
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return {name: dict(service["environment"]) for name, service in services.items()}


def image_environment() -> dict[str, str]:
    """What the image itself sets."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split()[1:])


@pytest.mark.parametrize("service", ["n1", "n2", "n3"])
def test_a_node_accepts_the_settings_of_the_compose_file(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = image_environment() | environments()[service]
    environment["RAFTCACHE_SECRET"] = "s" * 32
    for name, value in environment.items():
        if name.startswith("RAFTCACHE_"):
            monkeypatch.setenv(name, value)
    settings = load({})
    assert settings.node == service
    assert settings.member_ids == ("n1", "n2", "n3")
    assert settings.http_listen == ("0.0.0.0", 8000)
