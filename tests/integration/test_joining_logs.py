"""The questions to the access log that the documentation answers, asked of real etcd members."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend, Serve
from tests.clients import connect
from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import insist_put
from tests.gateway import Gateway, running
from tests.generate import DOCS
from tests.support import wait_until
from tests.tls import Authority

pytestmark = [
    needs_etcd,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not to be had here"),
]


def question(about: str) -> str:
    """The command below the line of the page that asks this."""
    page = (DOCS / "operations.md").read_text()
    found = re.search(rf"^{re.escape(about)}\n.*?```sh\n(.*?)\n```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def answer(about: str, directory: Path, logs: dict[str, str]) -> list[list[str]]:
    """What the page's command prints in a directory with these logs, as rows."""
    for name, text in logs.items():
        (directory / name).write_text(text)
    done = subprocess.run(
        ["sh", "-c", question(about)], cwd=directory, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("\t") for line in done.stdout.splitlines()]


def json_lines(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if line.startswith("{"))


def end_sessions(gateway: Gateway, count: int) -> None:
    wait_until(lambda: len(gateway.lines("session")) >= count, 20, f"{count} sessions ended")


def test_which_client_did_etcd_reject(tmp_path: Path) -> None:
    """etcd names the gateway; the access log says on whose behalf it came."""
    tls = Authority(tmp_path).server_files("127.0.0.1", "localhost")
    with (
        Cluster(tls=tls, json_log=True) as cluster,
        running("--access-log", endpoints=cluster.endpoints) as gateway,
    ):
        for n in range(3):
            insist_put(cluster, gateway.listen, "key", str(n))
        with connect(gateway.address) as plain:
            rejected = "{}:{}".format(*plain.getsockname())
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            plain.settimeout(60)
            while plain.recv(4096):
                pass
        end_sessions(gateway, 4)
        etcd_log = "".join(json_lines(cluster.log(index)) for index in range(3))
        logs = {"etcd.log": etcd_log, "gateway.log": gateway.text()}
        rows = answer("Which client did etcd reject?", tmp_path, logs)
    assert [(row[0], row[1]) for row in rows] == [(rejected, rows[0][1])]
    assert "rejected connection" in rows[0][1]


def delaying(port: int, delay_s: float) -> Serve:
    """Relay to a member, and hold back what it says."""

    async def copy(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float
    ) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(wait_s)
            writer.write(data)
        writer.write_eof()

    async def serve(
        _backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from_member, to_member = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(copy(reader, to_member, 0), copy(from_member, writer, delay_s))
        finally:
            to_member.close()

    return serve


def test_which_member_is_slow(tmp_path: Path) -> None:
    """The member whose first byte takes longest stands out, with the number of its sessions."""
    with Cluster() as cluster, Backend(delaying(cluster.client_ports[2], 0.2)) as slow:
        endpoints = [*cluster.endpoints[:2], slow.address]
        with running("--access-log", endpoints=endpoints, workers=1) as gateway:
            for n in range(9):
                insist_put(cluster, gateway.listen, "key", str(n))
            end_sessions(gateway, 9)
            counted = Counter(line["endpoint"] for line in gateway.lines("session"))
            rows = answer("Which member is slow?", tmp_path, {"gateway.log": gateway.text()})
    assert {row[0]: int(row[1]) for row in rows} == counted
    assert counted.keys() == set(endpoints)
    by_median: Callable[[list[str]], float] = lambda row: float(row[2])  # noqa: E731
    slowest = max(rows, key=by_median)
    assert slowest[0] == slow.address
    assert float(slowest[3]) >= float(slowest[2]) >= 0.2
