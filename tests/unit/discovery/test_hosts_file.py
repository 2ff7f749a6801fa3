"""The hosts file: read when it changed, in slices, and what is too long is said."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from supervisor.discovery import hosts_file
from supervisor.discovery.hosts_file import HostsFile
from tests.logbook import Logbook


def settle(path: Path) -> None:
    """Make the file look as if it had not been changed just now."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


def test_it_is_read_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file is not read again; a changed, replaced or vanished one is noticed."""
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 web\n")
    settle(path)

    async def main() -> None:
        hosts = HostsFile(str(path))
        assert await hosts.addresses("web") == ("10.0.0.1",)
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", lambda *_, **__: 1 // 0)
            assert await hosts.addresses("web") == ("10.0.0.1",)
        path.write_text("10.0.0.2 web\n")
        assert await hosts.addresses("web") == ("10.0.0.2",)
        path.write_text("10.0.0.3 web\n")  # same size, perhaps the same timestamp
        assert await hosts.addresses("web") == ("10.0.0.3",)
        path.unlink()
        assert await hosts.addresses("web") == ()
        os.mkfifo(path)
        assert await hosts.addresses("web") == ()

    asyncio.run(main())


def test_a_file_of_the_future_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was put back, or the file was made elsewhere: it is as unchanged as any other."""
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 web\n")
    os.utime(path, (4_000_000_000, 4_000_000_000))

    async def main() -> None:
        hosts = HostsFile(str(path))
        assert await hosts.addresses("web") == ("10.0.0.1",)
        monkeypatch.setattr("builtins.open", lambda *_, **__: 1 // 0)
        assert await hosts.addresses("web") == ("10.0.0.1",)

    asyncio.run(main())


def test_a_large_file_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    """Others run between the slices, and the last line counts."""
    path = tmp_path / "hosts"
    lines = (f"0.0.0.0 ads{i}.tracker.test\n" for i in range(100_000))
    path.write_text("".join(lines) + "10.0.0.1 web\n")

    async def main() -> None:
        hosts = HostsFile(str(path))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(count())
        both = await asyncio.gather(hosts.addresses("web"), hosts.addresses("ads7.tracker.test"))
        other.cancel()
        assert tuple(both) == (("10.0.0.1",), ("0.0.0.0",))
        assert turns > 100

    asyncio.run(main())


def test_what_is_cut_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too long is used as far as it goes, and the log says so."""
    monkeypatch.setattr(hosts_file, "MAX_BYTES", 100_000)
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 first\n" + "0.0.0.0 ads.test\n" * 10_000 + "10.0.0.1 last\n")
    log = Logbook()

    async def main() -> None:
        hosts = HostsFile(str(path), log)
        assert await hosts.addresses("first") == ("10.0.0.1",)
        assert await hosts.addresses("last") == ()

    asyncio.run(main())
    (line,) = log.lines_of("hosts file is too long, the rest is ignored")
    assert line["path"] == str(path)
