"""The report of a run: numbers that are right, and a page that needs nothing else."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jepsen_like.report.charts import Curve, Span, chart, lanes, ticks
from jepsen_like.run import report
from jepsen_like.run.meter import Meter
from jepsen_like.run.stage import Band
from tests.run.fake import Fake
from tests.run.test_runner import played

VOID = {"meta", "rect", "line", "polyline", "i", "br"}


class Tags(HTMLParser):
    """Elements that were opened and never closed, and what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID and tag not in ("p", "li"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and tag not in ("p", "li"):
            assert self.open.pop() == tag


def test_availability_counts_by_when_operations_began() -> None:
    meter = Meter()
    for at in (0.05, 1.05, 1.15, 1.25, 2.05):
        meter.add(at, at + 0.01, at != 1.15, "get")
    meter.flush()
    assert meter.availability([(0.0, 3.0)]) == (5, 1)
    assert meter.availability([(1.0, 2.0)]) == (3, 1)
    assert meter.availability([(0.0, 1.0), (2.0, 3.0)]) == (2, 0)
    assert [second.ok for second in meter.seconds] == [1, 2, 1]


def test_recovery_is_the_end_of_the_last_operation_that_failed_or_was_slow() -> None:
    meter = Meter()
    meter.add(9.0, 12.0, None, "set")  # began during the fault
    meter.add(10.2, 10.3, True, "get")
    meter.add(10.5, 11.4, True, "get")  # slow
    meter.add(11.0, 11.2, False, "get")
    meter.add(13.0, 13.1, True, "get")
    assert meter.recovered_after(10.0, 20.0) == pytest.approx(1.4)
    assert meter.recovered_after(12.0, 20.0) == 0.0


def test_what_the_next_fault_disturbed_is_no_lack_of_recovery() -> None:
    meter = Meter()
    meter.add(10.8, 12.5, None, "set")
    assert meter.recovered_after(5.0, 11.0) == 0.0
    meter.add(8.0, 12.5, None, "set")  # this one hung long before
    assert meter.recovered_after(5.0, 11.0) == pytest.approx(7.5)


def test_families_leave_out_what_had_no_majority() -> None:
    meter = Meter()
    for place in range(40):
        meter.add(place / 10 + 0.05, place / 10 + 0.06, not 10 <= place < 20, "get")
    bands = [Band("kill-all", "all", 0.0, 3.0), Band("kill-one", "n1", 2.0, 4.0)]
    rows = report.families(meter, bands, [(1.0, 2.0)])
    assert rows["kill-all"]["availability"] == pytest.approx(2 / 3, abs=1e-4)
    assert rows["kill-all"]["availability_with_majority"] == 1.0
    assert rows["kill-one"]["availability"] == 1.0


def test_spans_that_overlap_are_one_episode() -> None:
    assert report.merged([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]


def test_lanes_hold_what_does_not_overlap() -> None:
    def span(start: float, end: float) -> Span:
        return Span(start, end, "network", "x", "x")

    found = lanes([span(0, 2), span(1, 3), span(2, 4), span(3, 5)])
    assert [[(x.start_s, x.end_s) for x in lane] for lane in found] == [
        [(0, 2), (2, 4)],
        [(1, 3), (3, 5)],
    ]


@pytest.mark.parametrize("top", [0.3, 1, 7, 99, 100, 1234, 86400])
def test_ticks_are_few_and_round(top: float) -> None:
    found = ticks(top)
    assert found[0] == 0 and found[-1] <= top
    assert 5 <= len(found) <= 11


def test_a_chart_leaves_gaps_where_there_is_nothing() -> None:
    text = chart("x", [Curve("c0", [1.0, 2.0, math.nan, 3.0])], [], 4.0, logarithmic=True)
    assert text.count("<polyline") == 2
    assert "nan" not in text


@pytest.mark.parametrize("defect", ["", "lost write"])
def test_the_page_needs_nothing_but_itself(defect: str, tmp_path: Path) -> None:
    fake = Fake(defect)
    outcome, run = played(fake, tmp_path, seconds=2.0)
    facts = report.facts("fake <1>", fake, run.plan, outcome, 0.0)
    report.write(tmp_path, facts, outcome)
    text = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.fetched == [] and "script" not in tags.seen
    assert "fake &lt;1&gt;" in text
    assert not re.search(r"https?://", text)
    assert ("No order explains" in text) is bool(defect)
    assert ("violation" if defect else "valid") in text
    pytest.importorskip("matplotlib")
    for name in ("throughput.png", "latency.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
