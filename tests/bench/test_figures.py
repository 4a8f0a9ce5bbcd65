"""Medians, their spread, and tables of them."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuring import report
from measuring.figures import figures, markdown_table, rate, spread, text_table


def a_run(ops: float, p99: float | None = None, errors: int = 0) -> dict[str, object]:
    return {"ops_per_s": ops, "p99_ms": p99, "errors": errors, "other_cpu": 0.0}


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=9))
def test_a_spread_is_the_median_between_lowest_and_highest(values: list[float]) -> None:
    found = spread(values)
    assert found["lowest"] == min(values) <= found["median"] <= max(values) == found["highest"]
    assert found["median"] == statistics.median(values)


def test_figures_are_medians_of_latencies_and_sums_of_errors() -> None:
    found = figures([a_run(10, 3.0, 1), a_run(30, 1.0), a_run(20, 8.0, 4)])
    assert found["ops_per_s"] == {"median": 20, "lowest": 10, "highest": 30}
    assert (found["p99_ms"], found["errors"]) == (3.0, 5)
    assert len(found["runs"]) == 3


def test_what_a_generator_does_not_tell_is_not_made_up() -> None:
    found = figures([a_run(10), a_run(20)])
    assert found["p99_ms"] is None
    assert found["p50_ms"] is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (7, "7"),
        (123, "123"),
        (1234, "1,230"),
        (26217.9, "26,200"),
        (999_999, "1,000,000"),
    ],
)
def test_a_rate_has_three_digits(value: float, said: str) -> None:
    assert rate(value) == said


def test_tables_line_up() -> None:
    rows = [["a", "1,000"], ["longer", "2"]]
    assert text_table(["what", "n"], rows).splitlines() == [
        "what        n",
        "a       1,000",
        "longer      2",
    ]
    assert markdown_table(["what", "n"], rows).splitlines() == [
        "| what | n |",
        "| --- | ---: |",
        "| a | 1,000 |",
        "| longer | 2 |",
    ]


def test_a_report_marks_what_was_disturbed_what_failed_and_what_is_not_linearizable() -> None:
    runs = [a_run(1000, 2.0, 3) | {"other_cpu": 0.4, "first_error": "boom"}]
    results = {
        "machine": dict.fromkeys(
            ("cpu", "cores", "memory_gib", "kernel", "python", "taken", "load_average_before"), 1
        ),
        "conditions": {
            "nodes": 3,
            "durable": False,
            "clients": 50,
            "value_bytes": 100,
            "keys": 10_000,
            "through": "leader",
            "seconds": 1.0,
            "repeats": 1,
        },
        "peers": {"x": {"about": "a", "version": "1", "linearizable": False, "notes": ["n."]}},
        "failed": {"y": "no leader"},
        "figures": [{"load": "SET", "peer": "x", "generator": "g", **figures(runs)}],
    }
    (cells,) = report.rows(results)
    assert cells == ["SET", "x *", "g", "1,000", "1,000, 1,000", "-", "2.00", "-", "40%!", "3"]
    text = report.as_text(results)
    assert "first error: boom" in text
    assert "y failed in a turn: no leader" in text
