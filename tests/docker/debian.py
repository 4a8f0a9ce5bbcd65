"""What comes from Debian where no registry of images can be reached: a base image made with
debootstrap, and docker compose from the package of a newer release.

Debian's mirror is the one that this machine installs from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.programs import apt_alone, program

if TYPE_CHECKING:
    from tests.docker.engine import Engine

BASE_RELEASE = "bookworm"
COMPOSE_RELEASE = "trixie"
"""The first with docker compose 2: version 1 does not know a project's ``name``."""
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LEFT_OUT = ("var/cache/apt/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/locale/*")
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def base_image(engine: Engine, name: str, cache: Path) -> None:
    """Make a base image with Python, or take that of an earlier time from ``cache``. This machine's
    certificates are in it, since what it installs from may have one of its own."""
    archive = cache / f"{BASE_RELEASE}.tar"
    if not archive.exists():
        made = archive.with_suffix(".new")
        _debootstrap(made)
        made.rename(archive)
    engine.docker("import", str(archive), name)


def _debootstrap(archive: Path) -> None:
    debootstrap = program("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory(prefix="raftcache-base-") as directory:
        # In memory, where thousands of small files are written at once and not synced one by one.
        _run("mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "raftcache-base", directory)
        try:
            included = "--include=ca-certificates,python3,python3-venv"
            flags = ["--variant=minbase", included, BASE_RELEASE, directory, _mirror()]
            _run(debootstrap, *flags, timeout_s=240)
            if Path("/", _CERTIFICATES).exists():
                shutil.copyfile(Path("/", _CERTIFICATES), Path(directory, _CERTIFICATES))
                Path(directory, "etc/pip.conf").write_text(f"[global]\ncert = /{_CERTIFICATES}\n")
            left_out = [f"--exclude=./{each}" for each in _LEFT_OUT]
            _run("tar", "-C", directory, *left_out, "-cf", str(archive), ".")
        finally:
            _run("umount", directory)


def compose_plugin(directory: Path, cache: Path) -> None:
    """Put docker compose into a directory of plugins: nothing is installed on the machine."""
    kept = cache / "docker-compose"
    if not kept.exists():
        if shutil.which("apt-get") is None or not _KEYS.exists():
            pytest.skip("docker compose is not installed, and cannot be (Debian's docker-compose)")
        try:
            _fetch_compose(kept.with_suffix(".new"))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"docker compose cannot be had: {error.stderr.strip()[-300:]}")
        kept.with_suffix(".new").rename(kept)
    shutil.copy(kept, directory / kept.name)


def _fetch_compose(plugin: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="raftcache-compose-") as name:
        scratch = Path(name)
        sources = scratch / "sources.list"
        sources.write_text(f"deb [signed-by={_KEYS}] {_mirror()} {COMPOSE_RELEASE} main\n")
        for each in ("lists/partial", "cache/archives/partial", "unpacked"):
            (scratch / each).mkdir(parents=True)
        options = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": scratch / "lists",
            "Dir::Cache": scratch / "cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        _run(*apt, "update", cwd=scratch)
        _run(*apt, "download", "docker-compose", cwd=scratch)
        (package,) = scratch.glob("docker-compose_*.deb")
        _run("dpkg", "-x", str(package), str(scratch / "unpacked"))
        (found,) = (scratch / "unpacked").rglob("cli-plugins/docker-compose")
        shutil.copy(found, plugin)


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    mirrors = _mirrors()
    if not mirrors:
        # Whose index is whose is known once they were fetched.
        with apt_alone():
            _run("apt-get", "-qq", "update")
        mirrors = _mirrors()
    if not mirrors:
        pytest.skip("no Debian mirror is known here (apt-get indextargets names none)")
    return mirrors[0]


def _mirrors() -> list[str]:
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = (line.split() for line in listed.stdout.splitlines())
    return [line[2] for line in found if line[:2] == ["Debian", "Debian"]]


def _run(*command: str, cwd: Path | None = None, timeout_s: float = 120) -> None:
    subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
