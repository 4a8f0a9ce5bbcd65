"""``python -m jepsen_like judge DIR``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jepsen_like.__main__ import main
from jepsen_like.run.subjects import Kind


def line(key: str, op: str, args: list[str], result: str | None, start_ms: int) -> str:
    times = {"start": start_ms * 1_000_000, "end": start_ms * 1_000_000 + 1}
    fields = {"process": 1, "op": op, "key": key, "args": args, "result": result, "ok": True}
    return json.dumps(fields | times) + "\n"


GOOD = [line("r1", "set", ["a"], None, 1), line("r1", "get", [], "a", 2)]
BAD = [line("r2", "set", ["a"], None, 1), line("r2", "get", [], "b", 2)]
MAY_VANISH = f"{Kind.VANISHING.prefix}1"
EVICTED = [line(MAY_VANISH, "set", ["a"], None, 1), line(MAY_VANISH, "get", [], None, 2)]


def judged(tmp_path: Path, *lines: str, system: str = "local") -> int:
    (tmp_path / "history.jsonl").write_text("".join(lines))
    (tmp_path / "verdict.json").write_text(json.dumps({"system": system}))
    return main(["judge", str(tmp_path), "--jobs", "1"])


def test_every_key_is_judged_by_the_rules_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(tmp_path, *GOOD, *EVICTED) == 0
    assert capsys.readouterr().out == "valid: 4 operations, 2 keys: 2 valid, 0 not, 0 undecided\n"
    assert judged(tmp_path, *GOOD, *BAD) == 1
    told = capsys.readouterr().out
    assert "NOT LINEARIZABLE: key r2: no order explains" in told
    assert "invalid: 4 operations, 2 keys: 1 valid, 1 not, 0 undecided\n" in told


def test_no_time_is_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many increments of unknown outcome, and a value that no choice of them gives."""
    unknown = [
        json.dumps(
            {"process": i, "op": "incr", "key": "n1", "args": [2 * 3**i], "result": None}
            | {"start": 0, "end": None, "ok": None}
        )
        + "\n"
        for i in range(18)
    ]
    (tmp_path / "history.jsonl").write_text(
        "".join([*unknown, line("n1", "get", [], "1", 5), *GOOD])
    )
    (tmp_path / "verdict.json").write_text('{"system": "local"}')
    assert main(["judge", str(tmp_path), "--jobs", "1", "--key-seconds", "0"]) == 2
    assert "undecided: key n1, 19 operations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verdict", "history"),
    [
        (None, None),
        ("{}", ""),
        ('{"system": "nobody"}', ""),
        ("[]", ""),
        ('{"system": "local"}', "".join(GOOD)[:-20]),
    ],
)
def test_what_is_no_run_is_refused(
    tmp_path: Path,
    verdict: str | None,
    history: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in (("verdict.json", verdict), ("history.jsonl", history)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert main(["judge", str(tmp_path), "--jobs", "1"]) == 2
    assert capsys.readouterr().err.lstrip("\r").startswith(f"jepsen_like judge: {tmp_path}")


def test_nothing_is_not_valid(tmp_path: Path) -> None:
    assert judged(tmp_path) == 2
