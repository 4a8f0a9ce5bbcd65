"""Every guard has its story, every defect and every guarantee its guard."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from jepsen_like.sim.guards import (
    CONSTRUCTIONS,
    DEFECTS,
    GUARANTEES,
    GUARDS,
    UnknownGuardError,
    chosen,
    search,
    table,
    without,
)
from raftcache.raft.transport import GroupTransport


def marks(name: str) -> list[pytest.Mark]:
    """All marks of that name on the tests of this package."""
    found = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        tests = vars(importlib.import_module(f"{__package__}.{module.name}")).values()
        for test in tests:
            found += [m for m in getattr(test, "pytestmark", []) if m.name == name]
    return found


def test_every_guard_has_a_scenario_told_with_it_and_without_it() -> None:
    told = {name for mark in marks("guards") for name in mark.args}
    assert told == set(GUARDS)
    assert len(marks("guards")) == sum(
        mark.args == ("guarded", [True, False]) for mark in marks("parametrize")
    )


def test_every_construction_has_a_test() -> None:
    told = {mark.args[0] for mark in marks("construction")}
    assert told == {construction.name for construction in CONSTRUCTIONS}


def test_every_defect_and_every_guarantee_is_served() -> None:
    serving = [*GUARDS.values(), *CONSTRUCTIONS]
    assert {defect for each in serving for defect in each.defects} == set(DEFECTS)
    assert {number for each in serving for number in each.guarantees} == set(GUARANTEES)
    assert set(GUARANTEES) == set(range(1, 12))


def test_names_are_unique() -> None:
    names = [*GUARDS, *(construction.name for construction in CONSTRUCTIONS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_is_off_only_for_as_long_as_asked(name: str) -> None:
    places = [(owner, attribute) for owner, attribute, _ in GUARDS[name].patches]
    before = [vars(owner)[attribute] for owner, attribute in places]
    with pytest.raises(ZeroDivisionError), without(name):
        for owner, attribute, replacement in GUARDS[name].patches:
            assert vars(owner)[attribute] is replacement
        raise ZeroDivisionError
    assert [vars(owner)[attribute] for owner, attribute in places] == before


def test_an_unknown_guard_is_refused_with_the_list() -> None:
    match = GroupTransport._match
    refused = pytest.raises(UnknownGuardError, match=r"nonsense.*known: .*read-index")
    with refused, without("matching-prefix", "nonsense"):
        pass
    assert GroupTransport._match is match


def test_the_search_counts_what_random_runs_convict() -> None:
    row = search.row(chosen("pre-vote", "stickiness"), seeds=1, seconds=0.5)
    assert row.startswith("| `pre-vote`, `stickiness` | ") and " | 0 of 1 | " in row


def test_the_table_names_everything() -> None:
    for name in [*GUARDS, *(construction.name for construction in CONSTRUCTIONS)]:
        assert name in table()
