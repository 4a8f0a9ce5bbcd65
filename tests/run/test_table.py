"""The table of nemeses: what a cell says, how it is drawn, and that runs are played once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.run import tabulation
from jepsen_like.run.command import UsageError
from jepsen_like.run.nemeses import FAMILIES
from jepsen_like.run.systems import CONTROLS, SYSTEMS
from jepsen_like.run.table import Asked
from jepsen_like.run.tabulation import Cell, Result, Table, result_of
from tests.run.test_local import nodes_of
from tests.run.test_report import Tags

NEMESIS = "kill-one"
STALE = "a stale read is too old"
TORN = "not linearizable"


def facts(*kinds: str, **more: Any) -> dict[str, Any]:
    """``verdict.json``, as far as it matters, of a run with violations of these kinds."""
    row = {"operations": 200, "availability": 0.95}
    usual = {
        "violations": [{"at_s": 1.0, "kind": kind, "what": "x"} for kind in kinds],
        "undecided_keys": [],
        "keys_judged": 40,
        "faults": {NEMESIS: row},
        "seconds": 10.0,
        "stopped_early": False,
    }
    return usual | more


def cell(*runs: dict[str, Any] | None, system: str = "local") -> Cell:
    results = [result_of(run, system, NEMESIS, seed) for seed, run in enumerate(runs)]
    return Cell(tuple(results))


def table(**systems: Cell | None) -> Table:
    """Of one nemesis; underscores in names are dashes."""
    row = {name.replace("_", "-"): found for name, found in systems.items()}
    return Table(10.0, 1, tuple(row), {NEMESIS: row})


def test_valid_is_what_every_seed_found_nothing_in() -> None:
    found = cell(facts(), facts())
    assert found.verdict is Verdict.VALID
    assert found.text == "valid"


def test_a_conviction_says_how_often_and_of_what_in_the_judges_words() -> None:
    found = cell(facts(TORN, TORN, STALE), facts(), facts(STALE))
    assert found.verdict is Verdict.INVALID
    assert found.text == f"convicted 2 of 3: {STALE}, {TORN}"


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (facts(undecided_keys=["r1"]), tabulation.NOT_ALL_JUDGED),
        (facts(keys_judged=0), tabulation.NOT_ALL_JUDGED),
        (facts(faults={}), tabulation.NEVER_GIVEN),
        (facts(faults={"kill-all": {}}), tabulation.NEVER_GIVEN),
        (None, tabulation.NO_VERDICT),
    ],
)
def test_what_was_not_put_to_the_test_is_not_judged(run: dict[str, Any] | None, why: str) -> None:
    found = cell(facts(), run)
    assert found.verdict is Verdict.UNDECIDED
    assert found.text == f"not judged 1 of 2: {why}"


def test_a_conviction_stands_whatever_was_not_judged() -> None:
    found = cell(facts(TORN, undecided_keys=["r1"]), None)
    assert found.verdict is Verdict.INVALID
    assert found.text == f"convicted 1 of 2: {TORN}; not judged 1 of 2: {tabulation.NO_VERDICT}"


@pytest.mark.parametrize("kind", ["no recovery", "a node ended"])
def test_coming_back_too_late_convicts_raftcache_and_no_control(kind: str) -> None:
    assert cell(facts(kind)).text == f"convicted 1 of 1: {kind}"
    control = cell(facts(kind), facts(), system="etcd")
    assert control.verdict is Verdict.VALID
    assert control.text == f"valid; {kind} 1 of 2"
    assert cell(facts(kind, TORN), system="etcd").results[0].kinds == (TORN,)
    assert cell(facts(kind, undecided_keys=["r1"]), system="etcd").verdict is Verdict.UNDECIDED


def test_availability_counts_operations_not_runs() -> None:
    few = facts(faults={NEMESIS: {"operations": 100, "availability": 0.5}})
    many = facts(faults={NEMESIS: {"operations": 900, "availability": 1.0}})
    none = facts(faults={NEMESIS: {"operations": 0, "availability": None}})
    assert cell(few, many, none, None).availability == 0.95
    assert cell(none).availability is None


def test_the_exit_status_is_that_of_raftcache() -> None:
    valid, convicted, unjudged = cell(facts()), cell(facts(TORN)), cell(None)
    assert table(local=valid, netns=None, etcd=convicted).verdict is Verdict.VALID
    assert table(local=valid, redis_replicated=unjudged).verdict is Verdict.VALID
    assert table(local=unjudged, netns=convicted).verdict is Verdict.INVALID
    assert table(local=valid, netns=unjudged).verdict is Verdict.UNDECIDED
    assert set(SYSTEMS) >= CONTROLS


def test_every_nemesis_says_what_it_is_good_at_finding() -> None:
    assert tuple(tabulation.FINDS) == FAMILIES


def test_markdown_has_a_row_for_each_nemesis_and_a_column_for_each_system() -> None:
    drawn = tabulation.markdown(table(local=cell(facts()), netns=None, etcd=cell(None)))
    assert drawn.splitlines()[2:] == [
        "| nemesis | what it is good at finding | local | netns | etcd |",
        "| --- | --- | --- | --- | --- |",
        f"| {NEMESIS} | {tabulation.FINDS[NEMESIS]} | valid (95.000%) | - |"
        " not judged 1 of 1: no verdict |",
    ]


def test_a_reason_cannot_break_the_row() -> None:
    odd = Cell((Result(0, Verdict.UNDECIDED, why="a|b"),))
    assert "1 of 1: a\\|b |" in tabulation.markdown(table(local=odd))
    assert "&lt;b&gt;" in tabulation.page(
        table(local=Cell((Result(0, Verdict.INVALID, ("<b>",)),)))
    )


def test_the_page_needs_only_the_reports_beside_it() -> None:
    text = tabulation.page(table(local=cell(facts(), facts(TORN)), netns=None, etcd=cell(None)))
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and "script" not in tags.seen and "https:" not in text
    assert tags.fetched == [f"local/{NEMESIS}/seed-{seed}/report.html" for seed in (0, 1)]
    assert "class='verdict invalid'" in text and "class='verdict undecided'" in text


def test_json_says_everything_of_each_run() -> None:
    found = json.loads(tabulation.as_json(table(local=cell(facts(STALE), None), netns=None)))
    row = found["rows"][0]
    assert row["nemesis"] == NEMESIS and row["finds"] == tabulation.FINDS[NEMESIS]
    assert row["cells"]["netns"] is None
    first, second = row["cells"]["local"]["runs"]
    assert (first["verdict"], first["kinds"], first["operations"]) == ("invalid", [STALE], 200)
    assert (second["verdict"], second["why"]) == ("undecided", "no verdict")


def asked(out: Path, seconds: float = 10.0) -> Asked:
    able = {"local": frozenset({NEMESIS, "reset"}), "etcd": frozenset({"reset"})}
    return Asked(out, ("local", "etcd"), (NEMESIS, "reset"), able, seconds, seeds=2)


def test_a_system_gets_no_run_of_what_it_cannot_be_given(tmp_path: Path) -> None:
    assert [str(one) for one in asked(tmp_path).runs()] == [
        "local kill-one seed 0",
        "local kill-one seed 1",
        "local reset seed 0",
        "local reset seed 1",
        "etcd reset seed 0",
        "etcd reset seed 1",
    ]
    assert asked(tmp_path).table().rows[NEMESIS]["etcd"] is None


def test_a_run_is_over_when_it_ended_by_itself_or_convicted(tmp_path: Path) -> None:
    one = asked(tmp_path).runs()[0]
    assert one.facts() is None
    one.directory.mkdir(parents=True)
    for text, over in (
        (json.dumps(facts()), True),
        (json.dumps(facts())[:20], False),
        (json.dumps(facts(stopped_early=True)), False),
        (json.dumps(facts(TORN, stopped_early=True)), True),
    ):
        one.verdict.write_text(text)
        assert (one.facts() is not None) is over, text


def test_runs_of_another_length_are_not_taken_for_these(tmp_path: Path) -> None:
    one = asked(tmp_path).runs()[0]
    one.directory.mkdir(parents=True)
    one.verdict.write_text(json.dumps(facts()))
    with pytest.raises(UsageError, match="give --seconds 10, or another directory"):
        asked(tmp_path, seconds=20.0).table()


def test_a_run_that_did_not_start_says_why(tmp_path: Path) -> None:
    one = asked(tmp_path).runs()[0]
    one.directory.mkdir(parents=True)
    one.log.write_text("starting\njepsen_like run: there is no ip\n")
    assert one.result().why == "jepsen_like run: there is no ip"
    one.verdict.write_text(json.dumps(facts(stopped_early=True)))
    assert one.result().why == tabulation.NO_VERDICT


def command(out: Path, *more: str) -> list[str]:
    words = ["--systems", "local", "--faults", "transfer", "--seconds", "10", "--out", str(out)]
    return [sys.executable, "-m", "jepsen_like", "table", *words, *more]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--systems", "local,etc"], "unknown systems etc; known: docker, local"),
        (["--faults", "kil"], "unknown faults kil; known: partition-halves"),
        (["--faults", "none"], "name a system and a fault at least"),
        (["--faults", "duplicate"], "local cannot be given duplicate"),
        (["--seconds", "2"], "no fault comes before second 2"),
        (["--jobs", "0"], "are to be positive"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_played(
    more: list[str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "table"
    ended = subprocess.run(command(out, *more), capture_output=True, text=True)
    assert ended.returncode == 2 and said in ended.stderr
    assert not out.exists()


def test_a_table_that_was_interrupted_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    runs = {name: tmp_path / "local" / name / "seed-0" for name in ("transfer", "transfer-storm")}
    first = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL)
    log = tmp_path / "local" / "transfer" / "seed-0.log"
    while not (log.exists() and "transfer: all groups" in log.read_text()):
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(timeout=150) == 2
    assert nodes_of(runs["transfer"]) == []
    assert "not judged 1 of 1" in (tmp_path / "table.md").read_text()

    second = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=400)
    assert second.returncode == 0, second.stdout + second.stderr
    verdicts = [run / "verdict.json" for run in runs.values()]
    written_ns = [path.stat().st_mtime_ns for path in verdicts]
    third = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=60)
    assert third.returncode == 0 and "2 of 2 runs are there already" in third.stderr
    assert [path.stat().st_mtime_ns for path in verdicts] == written_ns
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["nemesis"], row["cells"]["local"]["text"]) for row in rows] == [
        ("transfer", "valid"),
        ("transfer-storm", "valid"),
    ]
    for name, run in runs.items():
        assert set(json.loads((run / "verdict.json").read_text())["faults"]) == {name}
        assert not (run / "nodes" / "data").exists()
        assert (run / "nodes" / "n1.log").stat().st_size
