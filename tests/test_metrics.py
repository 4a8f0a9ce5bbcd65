"""Metrics: counted cheaply, shown as Prometheus expects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from raftcache.metrics import SECONDS, GroupMetrics, Histogram, Metrics
from raftcache.service import ClusterStatus, GroupStatus, MemberStatus


def group_status(identifier: int, leader: str | None) -> GroupStatus:
    return GroupStatus(
        id=identifier,
        replicas=("n1", "n2"),
        leader=leader,
        role="follower",
        term=7,
        last_index=30,
        commit_index=20,
        applied_index=10,
        has_room=True,
        lag=5,
        slots=8192,
        policy="lru",
        entries=3,
        bytes=300,
        budget_bytes=1000,
        hits=11,
        misses=12,
        evictions=13,
        expirations=14,
    )


def cluster_status() -> ClusterStatus:
    return ClusterStatus(
        cluster="c",
        node="n1",
        version="0.1.0",
        ready=True,
        members=(
            MemberStatus(id="n1", http="", peer="", connected=True, self=True),
            MemberStatus(id="n2", http="", peer="", connected=False, self=False),
        ),
        groups=(group_status(0, "n1"), group_status(1, None)),
        slot_ranges=((0, 8191, 0), (8192, 16383, 1)),
    )


def scraped(metrics: Metrics) -> dict[str, Metric]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [
        each.value
        for family in families.values()
        for each in family.samples
        if each.name == sample and each.labels == labels
    ]
    assert len(found) == 1, (sample, labels, found)
    return found[0]


def test_the_state_of_each_group_is_read_at_scrape_time() -> None:
    families = scraped(Metrics(cluster_status, {}))
    assert value(families, "raftcache_group_term", group="0") == 7
    assert value(families, "raftcache_group_lag_entries", group="1") == 5
    assert value(families, "raftcache_group_has_room", group="1") == 1
    assert value(families, "raftcache_group_hits_total", group="0") == 11
    assert value(families, "raftcache_group_leader", group="0", leader="n1") == 1
    assert value(families, "raftcache_group_is_leader", group="0") == 1
    assert value(families, "raftcache_group_is_leader", group="1") == 0
    assert value(families, "raftcache_member_connected", member="n2") == 0


def test_a_group_without_leader_shows_none() -> None:
    leaders = scraped(Metrics(cluster_status, {}))["raftcache_group_leader"].samples
    assert [sample.labels["group"] for sample in leaders] == ["0"]


def test_what_a_group_counts_is_shown_with_its_outcome() -> None:
    counts = GroupMetrics()
    counts.applied, counts.unknown, counts.elections = 5, 1, 2
    counts.batch_operations.observe(100)
    counts.commit_seconds.observe(0.002)
    families = scraped(Metrics(cluster_status, {3: counts}))
    outcome = "raftcache_group_proposed_operations_total"
    assert value(families, outcome, group="3", outcome="applied") == 5
    assert value(families, outcome, group="3", outcome="unknown") == 1
    assert value(families, "raftcache_group_elections_total", group="3") == 2
    assert value(families, "raftcache_group_batch_operations_sum", group="3") == 100
    assert value(families, "raftcache_group_commit_seconds_bucket", group="3", le="0.0025") == 1
    assert value(families, "raftcache_group_commit_seconds_bucket", group="3", le="0.001") == 0


def test_requests_are_counted_by_operation_and_code() -> None:
    metrics = Metrics(cluster_status, {})
    http = metrics.front_end("http")
    for code in (200, 200, 404):
        http.observe("get", code, 0.003)
    families = scraped(metrics)
    of = {"front_end": "http", "operation": "get"}
    assert value(families, "raftcache_requests_total", code="200", **of) == 2
    assert value(families, "raftcache_requests_total", code="404", **of) == 1
    assert value(families, "raftcache_request_seconds_count", **of) == 3
    assert value(families, "raftcache_request_seconds_sum", **of) == pytest.approx(0.009)


def test_redis_commands_connections_and_errors_are_shown() -> None:
    metrics = Metrics(cluster_status, {})
    resp = metrics.resp
    resp.observe("get", 0.0002, 16)
    resp.observe("get", 0.3)
    resp.failed(b"-CLUSTERDOWN No leader took the command in time\r\n")
    resp.accepted, resp.rejected, resp.connections = 3, 1, lambda: 2
    families = scraped(metrics)
    assert value(families, "raftcache_resp_command_seconds_count", command="get") == 17
    bucket = "raftcache_resp_command_seconds_bucket"
    assert value(families, bucket, command="get", le="0.00025") == 16
    assert value(families, "raftcache_resp_errors_total", error="CLUSTERDOWN") == 1
    assert value(families, "raftcache_resp_connections") == 2
    assert value(families, "raftcache_resp_accepted_connections_total") == 3
    assert value(families, "raftcache_resp_rejected_connections_total") == 1


def test_the_process_is_shown_too() -> None:
    families = scraped(Metrics(cluster_status, {}))
    assert value(families, "process_resident_memory_bytes") > 1_000_000


def test_two_nodes_in_one_process_do_not_share_a_registry() -> None:
    first, second = Metrics(cluster_status, {}), Metrics(cluster_status, {})
    first.front_end("http").observe("get", 200, 0.001)
    assert scraped(second)["raftcache_requests"].samples == []


def test_every_metric_has_a_help_text_and_a_conventional_name() -> None:
    metrics = Metrics(cluster_status, {0: GroupMetrics()})
    metrics.front_end("http").observe("get", 200, 0.001)
    for name, family in scraped(metrics).items():
        assert family.documentation, name
        assert name.startswith(("raftcache_", "process_", "python_")), name
        assert not name.endswith(("_ms", "_kb", "_count", "_bucket")), name


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5))))
def test_a_histogram_counts_what_is_at_most_each_bound(values: list[tuple[float, int]]) -> None:
    histogram = Histogram(SECONDS)
    for seconds, count in values:
        histogram.observe(seconds, count)
    assert histogram.count == sum(count for _, count in values)
    assert histogram.total == pytest.approx(sum(v * count for v, count in values))
    for bound, (_, below) in zip(SECONDS, histogram.buckets(), strict=False):
        assert below == sum(count for v, count in values if v <= bound)


def test_bounds_are_written_without_rounding_noise() -> None:
    assert [bound for bound, _ in Histogram(SECONDS).buckets()][:4] == [
        "0.0001",
        "0.00025",
        "0.0005",
        "0.001",
    ]
