"""docker/README.md can be typed as it is, and clients see nothing wrong meanwhile."""

from __future__ import annotations

import re

import pytest

from tests.docker.cluster import COMPOSE, ROOT, Cluster
from tests.docker.test_cluster import judge
from tests.docker.workload import Workload

pytestmark = pytest.mark.docker
TEXT = (ROOT / "docker" / "README.md").read_text()
SECTIONS = {
    section.splitlines()[0].strip(): [
        line
        for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]
    for section in re.split(r"^##? ", TEXT, flags=re.MULTILINE)[1:]
}
UNDER_LOAD = ("Kill a node", "Cut a node off", "Restart one after the other")


def test_the_walk_works_while_clients_go_on(cluster: Cluster) -> None:
    before = {node: cluster.inspect(node)["Id"] for node in ("n1", "n2", "n3", "n4", "n5")}
    type_lines(cluster, "raftcache in containers")
    with Workload(cluster) as workload:
        for section in UNDER_LOAD:
            assert len(SECTIONS[section]) >= 3
            type_lines(cluster, section)
    judge(workload)
    assert all(cluster.inspect(node)["Id"] != was for node, was in before.items())


def test_more_replicas_answer_stale_reads_on_their_own(cluster: Cluster) -> None:
    printed = type_lines(cluster, "More reads")
    counts = re.findall(r"forwarded_operations_total\{group=\"\d\"\} (\S+)", printed)
    assert len(counts) == 8
    assert set(counts) == {"0.0"}
    cluster.compose("up", "--detach", "--wait")


def type_lines(cluster: Cluster, section: str) -> str:
    """Run a section's lines and compare each one's end with the comment behind it: the status of a
    curl, or the exit status. Returns all that was printed."""
    printed = ""
    for line in SECTIONS[section]:
        command, _, expected = re.sub(r"\s+# ", "  # ", line).partition("  # ")
        if command.startswith("export COMPOSE_FILE="):
            assert command.endswith(str(COMPOSE.relative_to(ROOT)))
            continue
        done = cluster.engine.run(
            as_here(cluster, command), timeout_s=240, more=cluster.environment, directory=ROOT
        )
        printed += done.stdout
        exit_status = re.fullmatch(r"exit (\d)", expected.strip())
        wanted = int(exit_status.group(1)) if exit_status else 0
        assert done.returncode == wanted, f"{line}\n{done.stdout}\n{done.stderr}"
        if re.fullmatch(r"\d{3}", expected.strip()):
            assert done.stdout.splitlines()[-1] == expected.strip(), (line, done.stdout)
    return printed


def as_here(cluster: Cluster, command: str) -> str:
    """The command for this cluster's names and ports."""
    command = command.replace("raftcache_", f"{cluster.project}_")
    command = re.sub(r"\braftcache-(n\d-1)", rf"{cluster.project}-\1", command)
    command = command.replace("127.0.0.1:800", f"127.0.0.1:{cluster.http_ports}")
    if command.startswith("curl -i"):
        command = command.replace("curl ", r"curl -s -w '\n%{http_code}' ", 1)
    return command
