"""Metrics: plain counters on the hot path, Prometheus text when somebody asks.

What the code counts on the way of every batch and request are integers and lists in
``GroupMetrics`` and ``FrontEnd`` (an ``observe`` costs 0.2 to 0.4 us; prometheus_client's own takes
1.8, for locks we do not need on one event loop). What the node knows anyway, terms, indexes,
hits, bytes, is read from ``ClusterStatus`` at scrape time. ``Metrics.render`` puts both and the
process's own figures into one registry of prometheus_client's, which writes the text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from raftcache.service import ClusterStatus, GroupStatus

SECONDS: Final = tuple(base * 10**power for power in range(-4, 1) for base in (1.0, 2.5, 5.0))
"""Bounds of latency histograms: 100 us to 5 s."""

OPERATIONS: Final = tuple(float(2**power) for power in range(14))
"""Bounds of batch size histograms: 1 to 8192 operations."""


class Histogram:
    """Counts of values per bucket. ``bounds`` are upper and inclusive; one more bucket takes the
    rest."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = list(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        """Sum of all values."""

    def observe(self, value: float, count: int = 1) -> None:
        """Count ``value``, ``count`` times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """(bound, number of values up to it) as Prometheus writes them."""
        names = [*(f"{bound:.12g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class GroupMetrics:
    """What one node counts for one Raft group. Plain attributes: ``metrics.applied += 1``."""

    __slots__ = (
        "applied",
        "batch_operations",
        "commit_seconds",
        "elections",
        "forwarded",
        "not_applied",
        "read_here",
        "read_rounds",
        "read_seconds",
        "snapshots_received",
        "snapshots_sent",
        "unknown",
    )

    def __init__(self) -> None:
        self.batch_operations = Histogram(OPERATIONS)
        """Operations in each batch that this node proposed as leader."""
        self.commit_seconds = Histogram(SECONDS)
        """From the proposal of a batch to its result, at the leader."""
        self.read_seconds = Histogram(SECONDS)
        """How long linearizable reads waited until they could be answered."""
        self.forwarded = 0
        """Operations that this node sent on to the group's leader."""
        self.read_here = 0
        """Linearizable reads that this node answered without leading the group."""
        self.applied = 0
        self.not_applied = 0
        self.unknown = 0
        """Operations proposed here, by outcome."""
        self.read_rounds = 0
        """ReadIndex rounds; each confirms the leadership for all reads that wait."""
        self.snapshots_sent = 0
        self.snapshots_received = 0
        self.elections = 0
        """Elections that this node started."""


class FrontEnd:
    """What one front end counts."""

    def __init__(self, name: str, render: Callable[[], tuple[bytes, str]]) -> None:
        self.name = name
        self.requests: dict[tuple[str, int], int] = {}
        self.seconds: dict[str, Histogram] = {}
        self.render = render
        """Body and content type of ``/metrics``."""

    def observe(self, operation: str, code: int, seconds: float) -> None:
        """One request answered. ``operation`` is one of a small fixed set of names."""
        requests = self.requests
        key = (operation, code)
        try:
            requests[key] += 1
            histogram = self.seconds[operation]
        except KeyError:
            requests.setdefault(key, 1)
            histogram = self.seconds.setdefault(operation, Histogram(SECONDS))
        histogram.counts[bisect_left(histogram.bounds, seconds)] += 1
        histogram.total += seconds


class RespCounters:
    """What the Redis front end counts."""

    def __init__(self) -> None:
        self.accepted = self.rejected = 0
        """Connections; those beyond the largest number of clients are rejected."""
        self.connections: Callable[[], int] = lambda: 0
        """Those open now."""
        self.seconds: dict[str, Histogram] = {}
        """By command, from its coming to its reply; how many there were, too."""
        self.errors: dict[str, int] = {}
        """Error replies, by the word they begin with."""

    def observe(self, command: str, seconds: float, count: int = 1) -> None:
        """``count`` commands of a pipeline were answered after ``seconds``. ``command`` is one of a
        fixed set of names."""
        try:
            histogram = self.seconds[command]
        except KeyError:
            histogram = self.seconds[command] = Histogram(SECONDS)
        histogram.observe(seconds, count)

    def failed(self, reply: bytes) -> None:
        """Count an error reply."""
        word = reply[1:].split(maxsplit=1)[0].decode(errors="replace")
        self.errors[word] = self.errors.get(word, 0) + 1

    @property
    def commands(self) -> int:
        """Answered so far."""
        return sum(histogram.count for histogram in self.seconds.values())

    def reset(self) -> None:
        """``CONFIG RESETSTAT``."""
        self.accepted = self.rejected = 0
        self.seconds.clear()
        self.errors.clear()


_Gauge = GaugeMetricFamily
_Counter = CounterMetricFamily

_STATUS: Final[tuple[tuple[str, type[Any], str, Callable[[GroupStatus], float]], ...]] = (
    ("term", _Gauge, "Raft term of this replica.", lambda g: g.term),
    ("last_index", _Gauge, "Last index of this replica's log.", lambda g: g.last_index),
    ("commit_index", _Gauge, "Commit index of this replica.", lambda g: g.commit_index),
    ("applied_index", _Gauge, "Last index applied by this replica.", lambda g: g.applied_index),
    (
        "lag_entries",
        _Gauge,
        "Log entries that this replica is behind the highest commit index it has heard of.",
        lambda g: g.lag,
    ),
    (
        "has_room",
        _Gauge,
        "1 while this node's disk takes more of the group's log: it is neither full nor failing.",
        lambda g: g.has_room,
    ),
    ("slots", _Gauge, "Hash slots of the group, of 16384.", lambda g: g.slots),
    ("entries", _Gauge, "Keys in this replica.", lambda g: g.entries),
    ("bytes", _Gauge, "Bytes charged for this replica's keys and values.", lambda g: g.bytes),
    (
        "budget_bytes",
        _Gauge,
        "Bytes that the group's keys and values may take before entries are evicted.",
        lambda g: g.budget_bytes,
    ),
    ("hits", _Counter, "Reads that found their key.", lambda g: g.hits),
    ("misses", _Counter, "Reads that found no key.", lambda g: g.misses),
    ("evictions", _Counter, "Entries removed to make room.", lambda g: g.evictions),
    ("expirations", _Counter, "Entries removed at the end of their TTL.", lambda g: g.expirations),
)

_COUNTS: Final[tuple[tuple[str, str, Callable[[GroupMetrics], float]], ...]] = (
    ("forwarded_operations", "Operations sent on to the group's leader.", lambda m: m.forwarded),
    (
        "follower_reads",
        "Linearizable reads that this node answered without leading the group.",
        lambda m: m.read_here,
    ),
    (
        "read_rounds",
        "ReadIndex rounds; each confirms the leadership for all reads that wait.",
        lambda m: m.read_rounds,
    ),
    ("elections", "Elections that this node started.", lambda m: m.elections),
    ("snapshots_sent", "Snapshots sent to replicas that lag.", lambda m: m.snapshots_sent),
    ("snapshots_received", "Snapshots taken over from leaders.", lambda m: m.snapshots_received),
)

_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[GroupMetrics], Histogram]], ...]] = (
    (
        "batch_operations",
        "Operations in each batch proposed by this node.",
        lambda m: m.batch_operations,
    ),
    (
        "commit_seconds",
        "Time from the proposal of a batch to its results.",
        lambda m: m.commit_seconds,
    ),
    ("read_seconds", "Time that reads waited for ReadIndex.", lambda m: m.read_seconds),
)


class Metrics:
    """Everything that ``/metrics`` of one node shows."""

    def __init__(
        self, status: Callable[[], ClusterStatus], groups: Mapping[int, GroupMetrics]
    ) -> None:
        """``status`` is asked at each scrape; ``groups`` are those that this node counts for, and
        may grow."""
        self.front_ends: list[FrontEnd] = []
        self.resp = RespCounters()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_Reader(status, groups, self.front_ends, self.resp))

    def front_end(self, name: str) -> FrontEnd:
        """A new front end (``http``), shown from now on."""
        front_end = FrontEnd(name, self.render)
        self.front_ends.append(front_end)
        return front_end

    def render(self) -> tuple[bytes, str]:
        """Body and content type of ``/metrics``: the Prometheus text format."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Reader(Collector):
    """Reads the counters when prometheus_client asks."""

    def __init__(
        self,
        status: Callable[[], ClusterStatus],
        groups: Mapping[int, GroupMetrics],
        front_ends: Sequence[FrontEnd],
        resp: RespCounters,
    ) -> None:
        self._status = status
        self._resp = resp
        self._groups = groups
        self._front_ends = front_ends

    def describe(self) -> Iterable[Metric]:
        """Nothing: the node need not have a status when it registers."""
        return ()

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        yield from _of_node(status)
        yield from _of_status(status)
        yield from _of_groups(self._groups)
        yield from _of_front_ends(self._front_ends)
        yield from _of_resp(self._resp)


def _of_node(status: ClusterStatus) -> Iterable[Metric]:
    info = {"version": status.version, "node": status.node, "cluster": status.cluster}
    yield InfoMetricFamily("raftcache_node", "This node.", value=info)
    yield _Gauge(
        "raftcache_ready",
        "1 when every group of this node has a leader and has caught up.",
        value=float(status.ready),
    )
    connected = _Gauge(
        "raftcache_member_connected",
        "1 when this node is connected to the member.",
        labels=["member"],
    )
    for member in status.members:
        if not member.self:
            connected.add_metric([member.id], float(member.connected))
    yield connected


def _of_status(status: ClusterStatus) -> Iterable[Metric]:
    for name, family, text, read in _STATUS:
        metric = family(f"raftcache_group_{name}", text, labels=["group"])
        for group in status.groups:
            metric.add_metric([str(group.id)], read(group))
        yield metric
    leader = _Gauge(
        "raftcache_group_leader",
        "1 for the member that this node takes for the group's leader; absent when there is none.",
        labels=["group", "leader"],
    )
    leads = _Gauge(
        "raftcache_group_is_leader", "1 when this node leads the group.", labels=["group"]
    )
    for group in status.groups:
        if group.leader is not None:
            leader.add_metric([str(group.id), group.leader], 1)
        leads.add_metric([str(group.id)], float(group.leader == status.node))
    yield leader
    yield leads


def _of_groups(groups: Mapping[int, GroupMetrics]) -> Iterable[Metric]:
    proposals = _Counter(
        "raftcache_group_proposed_operations",
        "Operations proposed by this node, by outcome: applied, not_applied (surely), unknown.",
        labels=["group", "outcome"],
    )
    for group, counts in groups.items():
        proposals.add_metric([str(group), "applied"], counts.applied)
        proposals.add_metric([str(group), "not_applied"], counts.not_applied)
        proposals.add_metric([str(group), "unknown"], counts.unknown)
    yield proposals
    for name, text, read in _COUNTS:
        counter = _Counter(f"raftcache_group_{name}", text, labels=["group"])
        for group, counts in groups.items():
            counter.add_metric([str(group)], read(counts))
        yield counter
    for name, text, histogram in _HISTOGRAMS:
        metric = HistogramMetricFamily(f"raftcache_group_{name}", text, labels=["group"])
        for group, counts in groups.items():
            values = histogram(counts)
            metric.add_metric([str(group)], values.buckets(), values.total)
        yield metric


def _of_front_ends(front_ends: Sequence[FrontEnd]) -> Iterable[Metric]:
    requests = _Counter(
        "raftcache_requests",
        "Requests answered, by operation and status code.",
        labels=["front_end", "operation", "code"],
    )
    seconds = HistogramMetricFamily(
        "raftcache_request_seconds",
        "Time from the request to its answer.",
        labels=["front_end", "operation"],
    )
    for front_end in front_ends:
        for (operation, code), count in front_end.requests.items():
            requests.add_metric([front_end.name, operation, str(code)], count)
        for operation, values in front_end.seconds.items():
            seconds.add_metric([front_end.name, operation], values.buckets(), values.total)
    yield requests
    yield seconds


def _of_resp(resp: RespCounters) -> Iterable[Metric]:
    yield _Gauge(
        "raftcache_resp_connections", "Redis clients connected now.", value=resp.connections()
    )
    yield _Counter(
        "raftcache_resp_accepted_connections", "Redis clients accepted.", value=resp.accepted
    )
    yield _Counter(
        "raftcache_resp_rejected_connections",
        "Redis clients turned away because there were too many.",
        value=resp.rejected,
    )
    errors = _Counter(
        "raftcache_resp_errors", "Error replies, by the word they begin with.", labels=["error"]
    )
    for word, count in resp.errors.items():
        errors.add_metric([word], count)
    yield errors
    seconds = HistogramMetricFamily(
        "raftcache_resp_command_seconds",
        "Time from a Redis command to its reply; those of one pipeline count together.",
        labels=["command"],
    )
    for command, values in resp.seconds.items():
        seconds.add_metric([command], values.buckets(), values.total)
    yield seconds
