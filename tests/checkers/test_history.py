"""History files, the command line and the picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepsen_like.__main__ import main
from jepsen_like.checkers.history import HistoryError, Operation, dump, load, parse
from jepsen_like.checkers.linearizability import check
from jepsen_like.report.timeline import page

GOOD = """\
{"process":0,"op":"set","key":"k","args":[1],"result":null,"start":0,"end":10,"ok":true}
{"process":1,"op":"get","key":"k","args":[],"result":"1","start":20,"end":30,"ok":true}

{"process":1,"op":"incr","key":"k","args":[2],"result":3,"start":40,"end":50,"ok":true}
{"process":2,"op":"set","key":"k","args":["x"],"result":null,"start":45,"end":null,"ok":null}
"""
BAD = GOOD + (
    '{"process":3,"op":"get","key":"k","args":[],"result":"<b>","start":60,"end":70,"ok":true}\n'
)


def write(directory: Path, text: str) -> str:
    path = directory / "history.jsonl"
    path.write_text(text)
    return str(path)


def test_files_round_trip_and_integers_are_values_too(tmp_path: Path) -> None:
    history = load(write(tmp_path, GOOD))
    assert [x.op for x in history] == ["set", "get", "incr", "set"]
    assert history[0].args == ("1",)
    assert history[3].ok is None and history[3].end is None
    dump(history, tmp_path / "again")
    assert [x.to_json() for x in load(tmp_path / "again")] == [x.to_json() for x in history]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("op", '"append"'),
        ("ok", '"yes"'),
        ("end", "null"),
        ("end", "-1"),
        ("args", "[]"),
        ("args", "[null]"),
        ("args", '["x", true]'),
        ("key", "7"),
        ("start", '"now"'),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(field: str, value: str) -> None:
    fields = {
        "process": "0",
        "op": '"set"',
        "key": '"k"',
        "args": '["x"]',
        "result": "null",
        "start": "0",
        "end": "1",
        "ok": "true",
        field: value,
    }
    line = "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"
    with pytest.raises(HistoryError, match="line 5"):
        parse(line, 4)


@pytest.mark.parametrize(
    ("line", "args", "result"),
    [
        ('"op":"cas","args":[null,1.5]', (None, "1.5"), True),
        ('"op":"cas","args":[true,"b"],"result":0', ("true", "b"), False),
        ('"op":"del","result":1', (), True),
        ('"op":"incr","args":[],"result":3', (1,), 3),
        ('"op":"get","result":[1,"a"]', (), '[1, "a"]'),
        ('"op":"set","args":[7],"result":"OK"', ("7",), None),
    ],
)
def test_what_other_harnesses_write_is_understood(
    line: str, args: tuple[object, ...], result: object
) -> None:
    found = parse(f'{{"process":0,"key":"k","start":0,"end":1,"ok":true,{line}}}', 0)
    assert (found.args, found.result) == (args, result)


def test_a_broken_line_is_refused() -> None:
    for line in ("{", "[]", '{"process": 1}'):
        with pytest.raises(HistoryError):
            parse(line, 0)


def test_exit_status_says_valid_violation_or_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(tmp_path, GOOD)]) == 0
    assert "valid: 4 operations" in capsys.readouterr().out
    assert main(["check", write(tmp_path, BAD)]) == 1
    out = capsys.readouterr().out
    assert 'no order explains [5] process 3: get() -> "<b>"' in out
    assert main(["check", write(tmp_path, "{"), "--seconds", "1"]) == 2
    assert main(["check", str(tmp_path / "missing")]) == 2


def test_the_picture_shows_the_culprit_and_is_self_contained(tmp_path: Path) -> None:
    target = tmp_path / "picture.html"
    assert main(["check", write(tmp_path, BAD), "--html", str(target)]) == 1
    text = target.read_text()
    assert "<svg" in text and "class='culprit'" in text
    assert "http" not in text and "<script" not in text and "src=" not in text
    assert "<b>" not in text and "&lt;b&gt;" in text


def test_a_valid_history_has_a_page_too() -> None:
    history = [Operation(0, "get", "k", (), None, 0, 1, True)]
    assert "valid" in page(check(history))
