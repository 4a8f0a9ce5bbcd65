"""``benchmarks/compare.py`` as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import clean_environment

from .conftest import BENCHMARKS, ServerFactory, Store

TIMEOUT_S = 120
SHORT = (
    *("--seconds", "0.3", "--warm-up", "0.1", "--repeats", "2"),
    *("--clients", "5", "--keys", "200", "--pipeline", "1,4"),
)

FAKE = """
from contextlib import contextmanager
from measuring.wire import WireRunning
from peers import Peer, PeerError
from raftcache.bench.dialects import DIALECTS

class Fake(Peer):
    name = "fake"
    about = "somebody else's server"
    linearizable = False

    @contextmanager
    def start(self, setup):
        yield WireRunning([], lambda: [("127.0.0.1", {port})], DIALECTS["resp"])

class Broken(Peer):
    name = "broken"
    about = "never starts"

    @contextmanager
    def start(self, setup):
        raise PeerError("it never starts")
        yield

PEERS = [Fake(), Broken()]
"""


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCHMARKS / "compare.py", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_run_leaves_a_table_a_picture_and_a_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = compare("--peers", "raftcache", *SHORT, "--out", out)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "comparison.json").read_text())
    loads = {each["load"] for each in results["figures"]}
    assert loads == {"SET", "SET, pipelines of 4", "GET", "GET, pipelines of 4"}
    for each in results["figures"]:
        ops = each["ops_per_s"]
        assert 0 < ops["lowest"] <= ops["median"] <= ops["highest"]
        assert len(each["runs"]) == 2
        assert each["server_cpu_us_per_op"] > 0
        assert (each["errors"], each["misses"]) == (0, 0)
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    page = (out / "comparison.html").read_text()
    assert "<svg" in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    text = (out / "comparison.txt").read_text()
    assert text.strip() in done.stdout
    median = results["figures"][0]["ops_per_s"]["median"]
    first_digits = f"{median:,.0f}"[:2]
    for written in (text, page, (out / "comparison.md").read_text()):
        assert "raftcache bench" in written
        assert first_digits in written


def test_reports_can_be_drawn_again(tmp_path: Path, resp_server: ServerFactory) -> None:
    plug_in = tmp_path / "fake.py"
    plug_in.write_text(FAKE.format(port=resp_server(Store()).port))
    first, second = tmp_path / "first", tmp_path / "second"
    done = compare("--peer-file", plug_in, "--peers", "fake", *SHORT, "--out", first)
    assert done.returncode == 0, done.stderr
    again = compare("--redraw", first / "comparison.json", "--out", second)
    assert again.returncode == 0, again.stderr
    for kind in ("txt", "md", "json"):
        name = f"comparison.{kind}"
        assert (first / name).read_text() == (second / name).read_text()


def test_a_peer_that_fails_is_told_and_the_others_are_measured(
    tmp_path: Path, resp_server: ServerFactory
) -> None:
    plug_in = tmp_path / "fake.py"
    plug_in.write_text(FAKE.format(port=resp_server(Store()).port))
    done = compare("--peer-file", plug_in, "--peers", "broken,fake", *SHORT)
    assert done.returncode == 1
    assert "broken failed in a turn: it never starts" in done.stdout
    assert re.search(r"fake \*\s+raftcache bench\s+[\d,]+", done.stdout)


def test_the_list_says_how_to_get_what_is_missing(tmp_path: Path) -> None:
    plug_in = tmp_path / "mine.py"
    plug_in.write_text(
        "from peers import Peer\n"
        "class Mine(Peer):\n"
        "    name, about = 'mine', 'a store'\n"
        "    programs, packages = ('no-such-program-anywhere',), ('some-package',)\n"
        "PEERS = [Mine()]\n"
    )
    listed = compare("--list", "--peer-file", plug_in)
    assert listed.returncode == 0
    assert "missing (no no-such-program-anywhere on PATH): apt-get install some-package" in (
        listed.stdout
    )
    asked = compare("--peers", "mine", "--peer-file", plug_in)
    assert asked.returncode == 2
    assert "apt-get install some-package" in asked.stderr


def test_a_peer_that_nobody_knows_is_refused() -> None:
    done = compare("--peers", "nobody")
    assert done.returncode == 2
    assert "there is no peer 'nobody'" in done.stderr
