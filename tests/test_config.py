"""Settings: where they come from, and how wrong ones are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raftcache.config import Settings, SettingsError, load, split_address
from raftcache.config.reference import settings_table
from raftcache.limits import Limits

ONE = "n1=127.0.0.1:7001/127.0.0.1:8001"
THREE = f"{ONE},n2=127.0.0.1:7002/127.0.0.1:8002,n3=127.0.0.1:7003/127.0.0.1:8003"


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAFTCACHE_")]:
        monkeypatch.delenv(name)


def loaded(config: Path | None = None, **flags: Any) -> Settings:
    given: dict[str, Any] = {"node": "n1", "members": THREE}
    if "data_dir" not in flags:
        given["memory"] = True
    return load(given | flags, config)


def refusal(**flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(**flags)
    assert "\n" not in "".join(caught.value.problems)
    return str(caught.value)


def toml(directory: Path, text: str) -> Path:
    path = directory / "raftcache.toml"
    path.write_text(text)
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toml(tmp_path, 'policy = "lfu"\ngroups = 8\nmax_memory = "1gb"')
    monkeypatch.setenv("RAFTCACHE_GROUPS", "16")
    monkeypatch.setenv("RAFTCACHE_POLICY", "fifo")
    settings = loaded(config, policy="sieve")
    assert settings.policy == "sieve"
    assert settings.groups == 16
    assert settings.max_memory == 1024**3
    assert settings.log_level == "info"


def test_members_may_be_a_table_list_in_toml(tmp_path: Path) -> None:
    config = toml(
        tmp_path,
        'node = "a"\nmemory = true\n[[members]]\nid = "a"\npeer = "127.0.0.1:1"\n'
        'http = "[::1]:2"\n',
    )
    settings = load({}, config)
    assert settings.me.http == "[::1]:2"
    assert settings.http_listen == ("::1", 2)


def test_numbers_in_toml_are_seconds_and_bytes(tmp_path: Path) -> None:
    config = toml(tmp_path, "session_ttl = 90\nelection_timeout = 0.4\nmax_memory = 2097152")
    settings = loaded(config)
    assert (settings.session_ttl, settings.election_timeout) == (90.0, 0.4)
    assert settings.max_memory == 2 * 1024**2


def test_settings_made_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTCACHE_GROUPS", "16")
    assert Settings.model_validate({"node": "n1", "members": ONE, "memory": True}).groups == 4


def test_empty_environment_variables_count_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTCACHE_SECRET", "")
    assert loaded().secret is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded().groups = 5


def test_every_limit_is_a_setting_of_the_same_name_and_default() -> None:
    assert loaded().limits == Limits()
    assert loaded(max_value_bytes="1mb").limits == Limits(max_value_bytes=1024**2)


def test_replication_is_three_or_the_number_of_members_when_that_is_less() -> None:
    assert loaded().replication == 3
    assert loaded(members=ONE).replication == 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("groups", "0", "a whole number, at least 1 and at most 1024"),
        ("groups", "four", "a whole number, at least 1 and at most 1024"),
        ("max_memory", "12zb", "a size such as 64mb, 1gb or a number of bytes, at least 1mb"),
        ("heartbeat_interval", "soon", "a duration such as 200ms, 5s, 10m or 1h, more than 0ms"),
        ("policy", "random", "one of lru, lfu, fifo, sieve, s3fifo"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("max_clock_drift", "1.5", "a fraction such as 0.05, at least 0 and less than 1"),
        ("peer_bind", "7001", "an address such as 10.0.0.1:7001 or [::1]:7001"),
        ("node", "no spaces", "1 to 63 letters, digits, dots, dashes and underscores"),
        ("memory", "perhaps", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_and_what_it_should_be(
    name: str, value: str, expected: str
) -> None:
    assert refusal(**{name: value}) == f"{name}: {value!r}; it should be {expected}"


def test_a_value_out_of_bounds_is_refused_with_the_bounds() -> None:
    assert refusal(max_memory="5").endswith("or a number of bytes, at least 1mb")


def test_a_missing_setting_is_refused_with_what_it_should_be() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"memory": True})
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "node: not given",
        "members: not given",
    ]


def test_all_problems_are_told_at_once() -> None:
    assert len(refusal(groups="0", policy="random", max_frame="x").splitlines()) == 3


def test_a_wrong_address_is_shown_with_the_member_it_belongs_to() -> None:
    assert refusal(members=f"{ONE},n2=127.0.0.1:x/127.0.0.1:8002").startswith(
        "members.2.peer: '127.0.0.1:x'; it should be an address"
    )


def test_a_wrong_secret_is_never_shown() -> None:
    assert "hunter2" not in refusal(secret="hunter2")
    assert "open sesame, open" not in repr(loaded(secret="open sesame, open"))


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="polcy: there is no setting of this name"):
        loaded(toml(tmp_path, 'polcy = "lru"'))


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        loaded(tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="is not TOML"):
        loaded(toml(tmp_path, "groups ="))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"node": "n9"}, "node: 'n9'; it should be one of the members: n1, n2, n3"),
        ({"members": f"{ONE},{ONE}"}, "members: id n1 appears more than once"),
        ({"members": f"{ONE},n2=127.0.0.1:7001/127.0.0.1:9"}, "peer 127.0.0.1:7001 appears more"),
        ({"members": "n1=127.0.0.1:1/127.0.0.1:1"}, "for both peers and http; use two ports"),
        ({"members": ""}, "members: ''; it should be id=peer-host:port"),
        ({"replication": 5}, "replication: 5; it should be at most the number of members (3)"),
        ({"memory": False}, "data_dir, memory: neither is given"),
        ({"data_dir": "x", "memory": True}, "data_dir, memory: both are given"),
        ({"heartbeat_interval": "100ms"}, "heartbeat_interval: 100ms; it should be less than a"),
        ({"lease_duration": "300ms"}, "lease_duration: 300ms; stretched by max_clock_drift"),
        ({"default_timeout_s": "2m"}, "default_timeout_s: 2m; it should be at most max_timeout_s"),
        ({"max_frame": "8mb"}, "max_frame: 8mb; it should be at least 33mb"),
        ({"members": "n1=10.0.0.1:1/10.0.0.1:2"}, "secret: not given; it should be, because"),
        ({"peer_bind": "0.0.0.0:7001"}, "secret: not given; it should be, because 0.0.0.0:7001"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    flags: dict[str, Any], message: str
) -> None:
    assert message in refusal(**flags)


def test_a_secret_allows_addresses_beyond_this_machine() -> None:
    assert loaded(members="n1=10.0.0.1:1/10.0.0.1:2", secret="0123456789abcdef").replication == 1


@pytest.mark.parametrize("text", ["", "host", ":1", "h:0", "h:65536", "::1:5", "[::1]", "a b:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        split_address(text)


def test_the_page_about_settings_is_the_one_that_the_declaration_gives() -> None:
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert settings_table() in page.read_text(), "run: python -m raftcache.config.reference"
