"""The image of the Containerfile, built by whichever builder this machine has.

No registry is asked: the image that it begins from is a Debian by debootstrap with Python in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.long_tests import only_long
from tests.stress.test_debian import install_release
from tests.support import free_port

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/etcd-gateway-test-base", "localhost/etcd-gateway-test"
LEAST = "python3,python3-venv,ca-certificates"
SOCKET = "unix:/run/etcd-gateway/admin.sock"
BUNDLE = "etc/ssl/certs/ca-certificates.crt"

pytestmark = [
    only_long,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="needs debootstrap"),
    pytest.mark.own_cpu,
    pytest.mark.timeout(1800),
]


class Builder:
    """Builds images without a daemon; what it stores is in a folder of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self._argv = [program, "--root", str(folder / "store"), "--runroot", str(folder / "run")]
        self._argv += ["--storage-driver", "vfs"]

    def __call__(self, *argv: str, timeout_s: float = 900) -> str:
        environ = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            [*self._argv, *argv], env=environ, capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, f"{argv}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """With the image that the Containerfile begins from."""
    program = shutil.which("buildah")
    if program is None:
        pytest.skip("needs buildah, which builds without a daemon")
    folder = tmp_path_factory.mktemp("images")
    builder = Builder(program, folder)
    release = install_release("trixie", LEAST)
    shutil.copy(Path("/") / BUNDLE, release / BUNDLE)  # whoever pip trusts here, it trusts there
    archive = folder / "base.tar"
    argv = ["tar", "--directory", str(release), "--exclude=./dev/*", "--create", "--file"]
    subprocess.run([*argv, str(archive), "."], check=True)
    container = builder("from", "scratch")
    builder("add", "--quiet", container, str(archive), "/")
    builder("commit", "--quiet", container, BASE)
    archive.unlink()
    argv = ["build", "--network=host", f"--build-arg=PYTHON={BASE}", "--format=docker"]
    argv += [f"--volume={path}:{path}:ro" for path in ("/etc/pip.conf",) if Path(path).exists()]
    argv += ["--file=deploy/container/Containerfile", f"--tag={IMAGE}", str(ROOT)]
    builder(*argv)
    return builder


@pytest.fixture
def container(builder: Builder) -> Iterator[str]:
    container = builder("from", IMAGE)
    yield container
    builder("rm", container)


def test_the_image_says_how_it_is_run(builder: Builder) -> None:
    """A user without rights, a check, a signal to stop with, and nothing to write but /run."""
    image = json.loads(builder("inspect", "--type=image", IMAGE))
    config = image["Docker"]["config"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["etcd-gateway"]
    assert config["Cmd"] == ["start"]
    assert config["Healthcheck"]["Test"][:3] == ["CMD", "etcd-gateway", "status"]
    assert list(config["Volumes"]) == ["/run/etcd-gateway"]


def test_the_program_in_it_starts_and_its_check_finds_it(builder: Builder, container: str) -> None:
    """As its user; and it leaves when it is told to."""
    port, listen = free_port(), free_port()
    script = f"""
        python3 -m http.server --bind 127.0.0.1 {port} > /dev/null 2>&1 & server=$!
        etcd-gateway start --endpoints=127.0.0.1:{port} --listen-addr=127.0.0.1:{listen} & pid=$!
        for _ in $(seq 100); do
          etcd-gateway status --admin-addr={SOCKET} > /dev/null 2>&1 && break
          sleep 0.2
        done
        etcd-gateway status --admin-addr={SOCKET} --json
        kill $pid && wait $pid
        kill $server
    """
    whole = builder("run", container, "--", "sh", "-ec", script)
    assert json.loads(whole[whole.index("{") :])["workers"]


def test_nothing_of_the_build_is_in_it(builder: Builder, container: str) -> None:
    """Neither pip nor our sources."""
    listed = builder("run", container, "--", "sh", "-c", "ls /opt/etcd-gateway/bin; ls /")
    assert "pip" not in listed.split()
    assert "source" not in listed.split()
