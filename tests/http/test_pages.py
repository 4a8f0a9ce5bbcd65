"""The cluster's state, health, metrics and documentation; errors that belong to no path."""

from __future__ import annotations

import re

import pytest
from fake_service import FakeService
from front_end import SMALL, Running, listening

from raftcache.http import HttpServer
from raftcache.ops import Status

PAGES = ["/v1/cluster", "/healthz", "/readyz", "/metrics", "/openapi.json", "/ui"]


async def test_the_cluster_shows_members_groups_and_slots(http: Running) -> None:
    answer = await http.send("GET", "/v1/cluster")
    assert answer.headers["content-type"] == "application/json"
    state = answer.json()
    assert [member["id"] for member in state["members"]] == ["n1", "n2", "n3"]
    assert [group["leader"] for group in state["groups"]] == ["n1", "n2", "n3", None]
    assert state["slot_ranges"][-1] == [12288, 16383, 3]


async def test_leadership_is_handed_over(http: Running) -> None:
    assert (await http.send("POST", "/v1/cluster/groups/2/transfer")).code == 204
    assert (await http.send("POST", "/v1/cluster/groups/2/transfer?to=n3")).code == 204
    assert http.service.transfers == [(2, None), (2, "n3")]


@pytest.mark.parametrize("target", ["9/transfer", "2/transfer?to=nobody"])
async def test_an_unknown_group_or_replica_is_404(http: Running, target: str) -> None:
    assert (await http.send("POST", f"/v1/cluster/groups/{target}")).problem == "not-found"


async def test_a_handover_that_was_not_done_is_503(http: Running) -> None:
    http.service.fail_with = Status.UNAVAILABLE
    assert (await http.send("POST", "/v1/cluster/groups/2/transfer")).code == 503


@pytest.mark.parametrize("page", PAGES)
async def test_every_page_answers_get_and_head_alike(http: Running, page: str) -> None:
    get, head = await http.send("GET", page), await http.send("HEAD", page)
    assert (get.code, head.code, head.body) == (200, 200, b"")
    assert {**get.headers, "date": ""} == {**head.headers, "date": ""}


@pytest.mark.parametrize("page", PAGES)
async def test_no_page_takes_another_method(http: Running, page: str) -> None:
    answer = await http.send("DELETE", page)
    assert (answer.code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "target", ["/", "/v1", "/v1/keys", "/v2/keys/a", "/healthz/", "/v1/cluster/groups/x"]
)
async def test_any_other_path_is_404(http: Running, target: str) -> None:
    assert (await http.send("GET", target)).problem == "not-found"


async def test_a_node_that_is_not_ready_is_healthy(http: Running) -> None:
    http.service.reason = "Group 3 has no leader."
    answer = await http.send("GET", "/readyz")
    assert (answer.code, answer.problem) == (503, "not-ready")
    assert answer.json()["detail"] == "Group 3 has no leader."
    assert (await http.send("GET", "/healthz")).code == 200


async def test_metrics_are_what_the_metrics_render(http: Running) -> None:
    answer = await http.send("GET", "/metrics?name[]=x")
    assert answer.body == b"raftcache_up 1\n"
    assert answer.headers["content-type"].startswith("text/plain")


async def test_without_metrics_the_page_is_empty() -> None:
    async with listening(HttpServer(FakeService(), SMALL)) as port:
        answer = await Running(FakeService(), port).send("GET", "/metrics")
        assert (answer.code, answer.body) == (200, b"")


async def test_the_dashboard_loads_nothing_from_elsewhere(http: Running) -> None:
    page = await http.send("GET", "/ui")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert re.findall(rb"https?://|innerHTML|@import|src=", page.body) == []
