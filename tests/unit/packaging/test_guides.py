"""What the guides show: configurations that load, an image, manifests for clusters."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib

import pytest

from supervisor.core.config import build
from supervisor.core.flags import BY_NAME
from tests.generate import DOCS, ROOT

CONTAINER = ROOT / "deploy" / "container"
CONTAINERFILE = (CONTAINER / "Containerfile").read_text()
MANIFESTS = sorted(CONTAINER.glob("*.yaml"))


@pytest.mark.parametrize("page", ["coming-from.md", "tutorial.md", "usage.md"])
def test_every_config_file_on_the_page_is_valid(page: str) -> None:
    """Each TOML block is taken by the gateway as it is."""
    blocks = re.findall(r"^```toml\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks or page == "tutorial.md"
    for block in blocks:
        build({}, {}, tomllib.loads(block))


def test_the_guide_for_newcomers_names_keys_that_exist() -> None:
    """What stands in the right column of its tables as a single word is a key."""
    text = (DOCS / "coming-from.md").read_text()
    named = set(re.findall(r"^\| .* \| `([a-z]+(?:-[a-z]+)*)`", text, re.MULTILINE))
    assert named - set(BY_NAME) <= {"etcd-gateway check", "etcd-gateway status"}


def test_the_image_runs_as_nobody_and_can_be_stopped() -> None:
    """Not root, TERM to drain, a check that needs no port, and the program itself as process 1."""
    lines = dict(
        line.split(" ", 1) for line in CONTAINERFILE.splitlines() if re.match(r"[A-Z]+ ", line)
    )
    assert lines["USER"] == "65532:65532"
    assert lines["STOPSIGNAL"] == "SIGTERM"
    assert lines["ENTRYPOINT"] == '["etcd-gateway"]'
    assert "HEALTHCHECK" in CONTAINERFILE
    for name in re.findall(r"/source/(\S+)", CONTAINERFILE):
        assert (ROOT / name).exists(), name


def test_the_dev_container_has_what_contributing_asks_for() -> None:
    """Python with venv and make in the image; then the Makefile's targets set up the rest."""
    folder = ROOT / ".devcontainer"
    document = json.loads((folder / "devcontainer.json").read_text())
    image = (folder / document["build"]["dockerfile"]).read_text()
    for package in ("python3", "python3-venv", "make", "git"):
        assert re.search(rf"\s{package}\s", image), package
    make, provision = document["postCreateCommand"].split(" && ")
    assert make.split() == ["make", ".venv/.tests"]
    assert "$(VENV)/.tests:" in (ROOT / "Makefile").read_text()
    program, *words = provision.split()
    assert os.access(ROOT / program, os.X_OK)
    assert words == ["test", ".venv/bin"]


def test_the_image_sets_defaults_alone() -> None:
    """Every variable of ours is one that the config file beats, and has a valid value."""
    variables = dict(re.findall(r"(GATEWAY_\w+)=(\S+)", CONTAINERFILE))
    assert variables
    assert all(name.startswith("GATEWAY_DEFAULT_") for name in variables)
    config = build({}, variables, {})
    assert config.admin_addr == ("unix:/run/etcd-gateway/admin.sock",)


@pytest.mark.slow
def test_the_manifests_follow_the_schema() -> None:
    """Kubernetes would take them, field by field."""
    validator = pytest.importorskip("kubernetes_validate", reason="needs `make .venv/.dist`")
    yaml = pytest.importorskip("yaml")
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            validator.validate(document, validator.latest_version(), strict=True)


def test_the_manifests_start_a_gateway_that_can_be_probed() -> None:
    """Arguments and config file are valid; probes ask where the admin address is, and so do the
    commands that somebody runs inside the container."""
    yaml = pytest.importorskip("yaml", reason="needs `make .venv/.dist`")
    inside = build({}, dict(re.findall(r"(GATEWAY_\w+)=(\S+)", CONTAINERFILE)), {}).admin_addr
    for path in MANIFESTS:
        documents = {each["kind"]: each for each in yaml.safe_load_all(path.read_text())}
        pod = documents.get("Pod") or documents["DaemonSet"]["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        command, *flags = container["args"]
        assert command == "start"
        given = [shlex.split(flag)[0].removeprefix("--").split("=", 1) for flag in flags]
        file = documents.get("ConfigMap", {}).get("data", {}).get("etcd-gateway.toml", "")
        config = build({name: [value] for name, value in given}, {}, tomllib.loads(file))
        for probe, path_asked in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            asked = container[probe]["httpGet"]
            assert asked["path"] == path_asked
            assert f"{asked['host']}:{asked['port']}" in config.admin_addr
        assert set(inside) < set(config.admin_addr)
        assert pod["spec"]["terminationGracePeriodSeconds"] > config.drain_timeout_s
