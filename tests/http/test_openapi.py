"""The OpenAPI document and the server, held against each other by a fuzzer.

Schemathesis makes requests from the document, right ones and wrong ones, and checks every answer
against it: no undocumented status, header, media type or body, no 5xx, 405 where a method is
missing. The seed is fixed, so that a failure repeats.

Some of its checks are told what a schema cannot say: too large is 413, 414 or 431 rather than
400; and below ``/v1/keys/`` the paths overlap, since ``a/incr`` is a key for every method but
POST. One is left out: a request that fits the schema may still be refused (a TTL past the largest,
an idempotency key used twice).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from fake_service import FakeService
from front_end import Observed, listening

from raftcache.http import HttpServer
from raftcache.http.exchange import Exchange, Reply
from raftcache.http.openapi import document
from raftcache.http.pages import Pages
from raftcache.http.problems import Kind
from raftcache.limits import Limits

CONFIGURATION = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 404, 405, 412, 413, 414, 415, 417, 422, 431]

[[operations]]
include-path-regex = "^/v1/keys/.key./(incr|expire)$"
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false
"""

EXAMPLES = 40


async def fuzz(port: int, directory: Path, *options: str) -> tuple[int, str]:
    """Exit status and output of Schemathesis against the server at ``port``."""
    configuration = directory / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(configuration), "run"),
        f"http://127.0.0.1:{port}/openapi.json",
        *("--phases", "examples,coverage,fuzzing", "--no-color"),
        *("--seed", "1", "--max-examples", str(EXAMPLES), *options),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def test_a_fuzzer_finds_the_server_to_be_what_its_document_says(
    tmp_path: Path, observed: Observed
) -> None:
    async with listening(HttpServer(FakeService(), Limits(), observed)) as port:
        status, output = await fuzz(port, tmp_path)
    assert status == 0, output[-20_000:]
    assert "Tested: 13" in output
    assert {code for _, code in observed.requests if code >= 500} == set()
    assert {200, 201, 204, 400, 404, 405, 412} <= {code for _, code in observed.requests}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(418),
        Reply(500),
        Reply(200, b"Content-Type: image/png\r\n", b"png"),
        Reply(400, b"Content-Type: application/problem+json\r\n", b'{"oops": true}'),
    ],
    ids=["undocumented status", "5xx", "undocumented media type", "wrong body"],
)
async def test_the_fuzzer_convicts_a_server_that_departs_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    async def wrong(self: Pages, exchange: Exchange, raw_query: str) -> Reply:
        return Reply(reply.code, reply.headers_block, reply.content)

    monkeypatch.setattr(Pages, "health", wrong)
    async with listening(HttpServer(FakeService(), Limits(), None)) as port:
        status, output = await fuzz(port, tmp_path, "--include-path", "/healthz")
    assert status == 1, output[-20_000:]


def test_every_problem_but_the_bug_and_plain_404s_is_documented_somewhere() -> None:
    text = repr(document(Limits())["paths"])
    missing = {kind for kind in Kind if f"'{kind.type}'" not in text}
    assert missing == {Kind.INTERNAL, Kind.ABORTED}
