"""``raftcache get | set | del | incr``: bytes in, bytes out, and exit statuses to rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import StubFactory, raftcache

KEYS = "/v1/keys/"


def problem(detail: str) -> bytes:
    return json.dumps({"type": "about:blank", "detail": detail}).encode()


def test_get_writes_the_value_byte_for_byte(stub: StubFactory) -> None:
    value = bytes(range(256)) + b"\r\n"
    done = raftcache("get", "k", "--url", stub(200, value).url)
    assert (done.returncode, done.stdout) == (0, value)


def test_get_of_a_missing_key_says_nothing_and_exits_1(stub: StubFactory) -> None:
    done = raftcache("get", "k", "--url", stub(404, problem("none")).url)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("key", [b"a/b c?d#e%", "grün".encode(), b"\xff\xfe", b"..", b"{tag}x"])
def test_keys_are_the_bytes_of_the_argument(stub: StubFactory, key: bytes) -> None:
    node = stub(200)
    raftcache("get", key, "--url", node.url)
    path = node.asked[0].target.partition("?")[0]
    assert path == KEYS + "".join(
        chr(byte)
        if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_.-~")
        else f"%{byte:02X}"
        for byte in key
    )


def test_set_sends_the_argument_and_prints_the_version(stub: StubFactory) -> None:
    node = stub(201, ETag='"17"')
    done = raftcache("set", "k", b"v\xff", "--ttl", "30s", "--url", node.url)
    assert (done.returncode, done.stdout) == (0, b"17\n")
    asked = node.asked[0]
    assert (asked.method, asked.body) == ("PUT", b"v\xff")
    assert "ttl=30s" in asked.target


def test_set_reads_the_value_from_standard_input(stub: StubFactory) -> None:
    node = stub(200)
    raftcache("set", "k", "-", "--url", node.url, stdin=b"\x00binary\n")
    assert node.asked[0].body == b"\x00binary\n"


def test_set_reads_the_value_from_a_file(stub: StubFactory, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b"\x01\x02")
    node = stub(200)
    raftcache("set", "k", f"@{tmp_path / 'value'}", "--url", node.url)
    raftcache("set", "k", "@@home", "--url", node.url)
    assert [asked.body for asked in node.asked] == [b"\x01\x02", b"@home"]


def test_conditions_become_preconditions(stub: StubFactory) -> None:
    node = stub(200)
    raftcache("set", "k", "v", "--if-absent", "--url", node.url)
    raftcache("set", "k", "v", "--if-version", "17", "--url", node.url)
    raftcache("del", "k", "--if-version", "18", "--url", node.url)
    first, second, third = (asked.headers for asked in node.asked)
    assert first["If-None-Match"] == "*"
    assert second["If-Match"] == '"17"'
    assert third["If-Match"] == '"18"'


def test_a_condition_that_does_not_hold_exits_1_with_the_reason(stub: StubFactory) -> None:
    done = raftcache("set", "k", "v", "--url", stub(412, problem("it changed")).url)
    assert (done.returncode, done.stderr) == (1, b"raftcache: it changed\n")


def test_incr_prints_the_sum(stub: StubFactory) -> None:
    node = stub(200, b'{"value":-2,"version":9}')
    done = raftcache("incr", "k", "--by=-3", "--url", node.url)
    assert (done.returncode, done.stdout) == (0, b"-2\n")
    assert node.asked[0].target.startswith(f"{KEYS}k/incr?by=-3&")


def test_a_node_that_does_not_listen_is_passed_over(stub: StubFactory, dead_url: str) -> None:
    node = stub(200, b"v")
    done = raftcache("get", "k", RAFTCACHE_URLS=f"{dead_url},{node.url}")
    assert (done.returncode, done.stdout) == (0, b"v")


def test_a_write_that_was_surely_not_applied_is_tried_at_the_next_node(stub: StubFactory) -> None:
    first, second = stub(503, problem("no leader")), stub(201, ETag='"1"')
    done = raftcache("set", "k", "v", "--url", first.url, "--url", second.url)
    assert done.returncode == 0
    assert (len(first.asked), len(second.asked)) == (1, 1)


def test_a_write_without_an_answer_is_not_sent_again_and_exits_4(stub: StubFactory) -> None:
    first, second = stub(0), stub(200)
    done = raftcache("incr", "k", "--url", first.url, "--url", second.url)
    assert done.returncode == 4
    assert b"may or may not have been applied" in done.stderr
    assert second.asked == []


def test_a_read_without_an_answer_is_asked_of_the_next_node(stub: StubFactory) -> None:
    first, second = stub(0), stub(200, b"v")
    assert raftcache("get", "k", "--url", first.url, "--url", second.url).stdout == b"v"


def test_an_unknown_outcome_exits_4(stub: StubFactory) -> None:
    assert raftcache("del", "k", "--url", stub(504, problem("who knows")).url).returncode == 4


def test_no_node_at_all_exits_3_and_names_each(dead_url: str) -> None:
    done = raftcache("del", "k", "--url", dead_url)
    assert done.returncode == 3
    assert dead_url in done.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("get",),
        ("get", "k", "--url", "ftp://x"),
        ("get", "k", "--timeout", "soon"),
        ("set", "k", "@/does/not/exist"),
        ("set", "k", "v", "--if-absent", "--if-version", "1"),
        ("incr", "k", "--by", "one"),
        ("nonsense",),
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    done = raftcache(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert b"Traceback" not in done.stderr
