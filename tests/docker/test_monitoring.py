"""Prometheus and Grafana are told of metrics that exist, in files that they accept.

Grafana itself is not run. A Prometheus is, with the rules of the profile, beside a cluster of local
processes: every query of the dashboard is asked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from raftcache.demo import Cluster, Plan
from raftcache.ports import free_ports
from tests.programs import program

DOCKER = Path(__file__).parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
GRAFANA = DOCKER / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "raftcache.json").read_text())
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"][0]["rules"]
PATIENCE_S = 60.0
NODES = ("n1", "n2", "n3")
# What a rate is taken over: Grafana sets it to four scrapes or more.
_VARIABLES = {"$__rate_interval": "10s", "$instance": ".*"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes that have answered some requests."""
    with Cluster(Plan(nodes=3, groups=4, port=0, memory=True)) as running:
        running.wait_until_ready()
        load(running)
        yield running


def load(cluster: Cluster) -> None:
    """Writes, hits and misses in every group, through every node."""
    for i, url in itertools.product(range(20), cluster.urls):
        request = urllib.request.Request(f"{url}/v1/keys/{i}", data=b"value", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        urllib.request.urlopen(f"{url}/v1/keys/{i}", timeout=10).close()
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/v1/keys/none-{i}", timeout=10)


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    promtool = program("promtool", "prometheus")
    for arguments in (
        ["check", "config", str(PROMETHEUS / "prometheus.yml")],
        ["test", "rules", str(PROMETHEUS / "rules_test.yml")],
    ):
        done = subprocess.run(
            [promtool, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    cases = [case for each in tests for case in each["alert_rule_test"]]
    alerts = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts


def test_all_nodes_of_the_compose_file_are_scraped_where_they_listen() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    (targets,) = job["static_configs"]
    nodes = [name for name, service in COMPOSE["services"].items() if "profiles" not in service]
    assert targets["targets"] == [f"{node}:8000" for node in nodes]


def test_nothing_of_the_monitoring_starts_unless_asked_for() -> None:
    for name in ("prometheus", "grafana"):
        assert COMPOSE["services"][name]["profiles"] == ["monitoring"]


def test_what_is_mounted_exists_and_is_where_it_is_looked_for() -> None:
    mounts = {
        inside: DOCKER / outside
        for name in ("prometheus", "grafana")
        for outside, inside, *_ in (x.split(":") for x in COMPOSE["services"][name]["volumes"])
        if outside.startswith("./")
    }
    assert all(outside.is_dir() for outside in mounts.values())
    provider = GRAFANA / "provisioning" / "dashboards" / "raftcache.yaml"
    (found,) = yaml.safe_load(provider.read_text())["providers"]
    assert mounts[found["options"]["path"]] == GRAFANA / "dashboards"
    home = COMPOSE["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert mounts[str(Path(home).parent)].joinpath(Path(home).name).is_file()


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    text = (GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    used = {
        json.dumps(x["datasource"], sort_keys=True) for x in (*PANELS, *(t for _, t in TARGETS))
    }
    assert [json.loads(each) for each in used] == [{"type": source["type"], "uid": source["uid"]}]
    assert source["url"] == "http://prometheus:9090"


def test_the_dashboard_is_laid_out_without_gaps_or_overlaps() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        own = set(
            itertools.product(
                range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
            )
        )
        assert not own & cells, panel["title"]
        cells |= own
    height = max(y for _, y in cells) + 1
    assert cells == set(itertools.product(range(24), range(height)))


def test_every_metric_that_is_used_is_one_that_a_node_shows(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"{cluster.urls[0]}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    shown = {sample.name for family in families for sample in family.samples}
    queries = [target["expr"] for _, target in TARGETS] + [rule["expr"] for rule in RULES]
    used = {name for query in queries for name in re.findall(r"(?:raftcache|process)_\w+", query)}
    assert len(used) > 20
    assert used - shown == set()


def test_prometheus_finds_something_for_every_panel(cluster: Cluster, tmp_path: Path) -> None:
    with prometheus(cluster, tmp_path) as url:
        # A rate needs two scrapes, and what it is the rate of between them.
        scraped = "count_over_time(up[1m]) >= 2"
        until(lambda: len(query(url, scraped)) == len(NODES), "all nodes are scraped twice")
        load(cluster)
        for title, target in TARGETS:
            expression = plain(target["expr"])
            until(lambda x=expression: has_number(query(url, x)), f"{title}: {expression}")
            found = query(url, expression)
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert all(wanted <= set(each["metric"]) for each in found), (title, found)
        (group,) = ask(url, "rules")["groups"]
        assert {rule["name"] for rule in group["rules"]} == {rule["alert"] for rule in RULES}
        assert all(rule["health"] == "ok" for rule in group["rules"]), group
        # A leader that moves between the scrapes of two nodes is seen on neither, for a moment.
        until(lambda: quiet(url), "every alert is inactive")
        variable = DASHBOARD["templating"]["list"][0]["query"]["query"]
        assert variable == "label_values(raftcache_ready, instance)"
        assert {x["metric"]["instance"] for x in query(url, "raftcache_ready")} == set(NODES)


def has_number(samples: list[dict[str, Any]]) -> bool:
    """Whether one is no quotient of nothing by nothing, as those of nodes that lead no group."""
    values = [float(each["value"][1]) for each in samples]
    return any(value == value for value in values)


def quiet(url: str) -> bool:
    (group,) = ask(url, "rules")["groups"]
    return all(rule["state"] == "inactive" for rule in group["rules"])


@contextlib.contextmanager
def prometheus(cluster: Cluster, directory: Path) -> Iterator[str]:
    """The base URL of a Prometheus that is configured as that of the profile, but for where the
    nodes are and how often it asks them."""
    binary = program("prometheus", "prometheus")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "rules.yml")]
    (job,) = config["scrape_configs"]
    del job["relabel_configs"]
    job["static_configs"] = [
        {"targets": [urllib.parse.urlsplit(url).netloc], "labels": {"instance": node}}
        for node, url in zip(NODES, cluster.urls, strict=True)
    ]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [
        binary,
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or answers(url), "Prometheus is ready")
        assert process.poll() is None, (directory / "log").read_text()
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def ask(url: str, what: str, **parameters: str) -> Any:
    """The data of an answer of Prometheus's API; it has to succeed."""
    with urllib.request.urlopen(
        f"{url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=10
    ) as answer:
        return json.loads(answer.read())["data"]


def query(url: str, expression: str) -> list[dict[str, Any]]:
    """The samples that an expression has now."""
    data = ask(url, "query", query=expression)
    assert data["resultType"] == "vector", expression
    found: list[dict[str, Any]] = data["result"]
    return found


def plain(expression: str) -> str:
    """The expression with values for Grafana's variables."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def until(holds: Any, what: str) -> None:
    """Wait, but not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.2)
