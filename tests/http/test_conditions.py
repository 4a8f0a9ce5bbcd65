"""Conditional requests: RFC 9110 section 13, with versions as entity tags (section 8.8.3)."""

from __future__ import annotations

import re

import pytest
from front_end import Running
from hypothesis import given
from hypothesis import strategies as st

from raftcache.http.conditions import ANY, TAGS_PATTERN, parse_tags
from raftcache.http.problems import ProblemError
from raftcache.ops import INT64_MAX


async def stored(http: Running) -> str:
    """Put key ``k`` and return its ETag."""
    return (await http.send("PUT", "/v1/keys/k", b"old")).headers["etag"]


async def test_if_none_match_star_creates_only(http: Running) -> None:
    assert (await http.send("PUT", "/v1/keys/k", b"1", If_None_Match="*")).code == 201
    answer = await http.send("PUT", "/v1/keys/k", b"2", If_None_Match="*")
    assert (answer.code, answer.problem) == (412, "precondition-failed")
    assert answer.json()["version"] == 1


async def test_if_match_star_replaces_only(http: Running) -> None:
    answer = await http.send("PUT", "/v1/keys/k", b"1", If_Match="*")
    assert (answer.code, answer.problem) == (412, "precondition-failed")
    assert "version" not in answer.json()
    await stored(http)
    assert (await http.send("PUT", "/v1/keys/k", b"2", If_Match="*")).code == 200


async def test_if_match_with_the_current_etag_swaps_once(http: Running) -> None:
    etag = await stored(http)
    assert (await http.send("PUT", "/v1/keys/k", b"new", If_Match=etag)).code == 200
    assert (await http.send("PUT", "/v1/keys/k", b"newer", If_Match=etag)).code == 412
    assert http.service.stored(b"k") == b"new"


async def test_if_match_takes_a_list_over_several_fields(http: Running) -> None:
    etag = await stored(http)
    wire = await http.connect()
    wire.send(
        b"PUT /v1/keys/k HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
        b'If-Match: "77", "abc"\r\nIf-Match: ' + etag.encode() + b"\r\n\r\n"
    )
    assert (await wire.answer()).code == 200
    wire.close()


async def test_a_weak_tag_never_satisfies_if_match(http: Running) -> None:
    etag = await stored(http)
    assert (await http.send("PUT", "/v1/keys/k", b"new", If_Match=f"W/{etag}")).code == 412


@pytest.mark.parametrize("etag", ['"abc"', '"01"', '"+1"', '"1 "', '""', '"' + "9" * 30 + '"'])
async def test_a_tag_that_is_no_version_matches_nothing(http: Running, etag: str) -> None:
    await stored(http)
    code = 400 if " " in etag else 412
    assert (await http.send("PUT", "/v1/keys/k", b"new", If_Match=etag)).code == code
    code = 400 if " " in etag else 200
    assert (await http.send("PUT", "/v1/keys/k", b"new", If_None_Match=etag)).code == code


async def test_if_none_match_with_a_list_refuses_those_versions(http: Running) -> None:
    etag = await stored(http)
    answer = await http.send("PUT", "/v1/keys/k", b"new", If_None_Match=f'"9", W/{etag}')
    assert answer.code == 412
    assert (await http.send("PUT", "/v1/keys/k", b"new", If_None_Match='"9"')).code == 200


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "code"),
    [
        ('"1"', '"2"', 200),
        ('"1"', '"1"', 412),
        ('"1"', "*", 412),
        ("*", "*", 412),
        ("*", '"2"', 400),
    ],
)
async def test_both_headers_must_hold(
    http: Running, if_match: str, if_none_match: str, code: int
) -> None:
    assert await stored(http) == '"1"'
    answer = await http.send(
        "PUT", "/v1/keys/k", b"new", If_Match=if_match, If_None_Match=if_none_match
    )
    assert answer.code == code


async def test_delete_obeys_if_match(http: Running) -> None:
    etag = await stored(http)
    assert (await http.send("DELETE", "/v1/keys/k", If_Match='"99"')).code == 412
    assert (await http.send("DELETE", "/v1/keys/k", If_Match=etag)).code == 204


@pytest.mark.parametrize(
    ("method", "target"), [("DELETE", "/v1/keys/k"), ("POST", "/v1/keys/k/expire?ttl=1s")]
)
async def test_a_condition_on_what_is_missing_anyway_is_404(
    http: Running, method: str, target: str
) -> None:
    assert (await http.send(method, target, If_Match="*")).code == 404


async def test_incr_and_expire_obey_if_match(http: Running) -> None:
    version = (await http.send("POST", "/v1/keys/k/incr")).headers["etag"]
    assert (await http.send("POST", "/v1/keys/k/incr", If_Match='"99"')).code == 412
    answer = await http.send("POST", "/v1/keys/k/expire?ttl=1s", If_Match=version)
    assert answer.code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("tags", ["*", '"1"', 'W/"1"', '"5", "1"', ', "1",'])
async def test_a_read_of_a_known_version_is_304(http: Running, method: str, tags: str) -> None:
    await stored(http)
    answer = await http.send(method, "/v1/keys/k", If_None_Match=tags)
    assert (answer.code, answer.headers["etag"], answer.body) == (304, '"1"', b"")
    assert "content-length" not in answer.headers


async def test_a_read_of_another_version_is_200(http: Running) -> None:
    await stored(http)
    assert (await http.send("GET", "/v1/keys/k", If_None_Match='"2"')).code == 200


async def test_a_read_with_if_match_of_another_version_is_412(http: Running) -> None:
    await stored(http)
    assert (await http.send("GET", "/v1/keys/k", If_Match='"1"')).code == 200
    assert (await http.send("GET", "/v1/keys/k", If_Match="*")).code == 200
    answer = await http.send("GET", "/v1/keys/k", If_Match='"2"', If_None_Match='"1"')
    assert (answer.code, answer.problem) == (412, "precondition-failed")


async def test_a_read_of_a_missing_key_is_404_whatever_the_condition(http: Running) -> None:
    assert (await http.send("GET", "/v1/keys/k", If_Match="*")).code == 404
    assert (await http.send("GET", "/v1/keys/k", If_None_Match="*")).code == 404


@pytest.mark.parametrize(
    "text", ["", "1", '"1', '1"', '"1" "2"', "**", '*, "1"', 'w/"1"', ",", "x"]
)
async def test_what_is_no_list_of_tags_is_refused(http: Running, text: str) -> None:
    assert (await http.send("PUT", "/v1/keys/k", b"", If_Match=text)).code == 400
    assert (await http.send("PUT", "/v1/keys/k", b"", If_None_Match=text)).code == 400
    assert http.service.writes == []


@given(st.lists(st.integers(1, INT64_MAX), min_size=1), st.sampled_from([",", ", ", " ,\t,"]))
def test_any_list_of_versions_reads_back(versions: list[int], separator: str) -> None:
    text = separator.join(f'"{version}"' for version in versions)
    assert parse_tags(text, strong=True) == tuple(versions)


@given(st.text(alphabet='*"W/, \t19x\x80') | st.text())
def test_the_parser_reads_what_the_document_says_and_no_more(text: str) -> None:
    try:
        tags = parse_tags(text, strong=False)
    except ProblemError:
        assert not re.fullmatch(TAGS_PATTERN, text)
        return
    assert re.fullmatch(TAGS_PATTERN, text)
    assert tags == ANY or all(isinstance(version, int) for version in tags)
