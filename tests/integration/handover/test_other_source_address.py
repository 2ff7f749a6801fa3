"""A restart with an address to dial from that this host does not have."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.clients import echoes
from tests.integration.handover.test_record import echoing

pytestmark = pytest.mark.timeout(300)


def test_the_old_workers_serve_until_the_address_is_one(tmp_path: Path) -> None:
    """The log says what is missing, and a reload is the way out, as a restart would be."""
    file = tmp_path / "gateway.toml"
    file.write_text("")
    with echoing(tmp_path, "--workers=1", f"--config-file={file}") as gateway:
        manager = gateway.manager
        manager.end_main(signal.SIGTERM)
        file.write_text('source-addr = "192.0.2.77"')
        main = manager.launch()
        gateway.until(lambda status: status["state"] == "starting")
        manager.until(lambda: "the old workers go on" in manager.log.read_text(), 60)
        assert all(echoes(gateway.address, 10) for _ in range(4))
        assert not manager.ready
        file.write_text('source-addr = "127.0.0.1"')
        main.send_signal(signal.SIGHUP)
        gateway.until(lambda status: status["state"] == "ready")
        assert echoes(gateway.address, 10)
