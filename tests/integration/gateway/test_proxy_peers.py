"""The PROXY protocol between real programs: HAProxy and nginx as senders and receivers."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.gateway import READY, Gateway, running
from tests.proxies import (
    ask,
    haproxy,
    haproxy_that_tells,
    needs_haproxy,
    needs_nginx,
    needs_nginx_stream,
    nginx,
    nginx_that_tells,
)
from tests.support import PATIENCE, free_port, wait_until

SESSIONS = 1000
FLAGS = ("--proxy-in=127.0.0.1", "--access-log", "--health-check=http", "--health-path=/")


def sources(count: int) -> Iterator[str]:
    """Addresses of loopback for clients, none of them the proxies' own."""
    return (f"127.{1 + n % 9}.{n // 250}.{1 + n % 250}" for n in range(count))


def sender_v2(port: int, target: int, options: str = "") -> str:
    return f"""
frontend in
  mode tcp
  bind 127.0.0.1:{port}
  unique-id-format id-%ci-%cp
  use_backend out
backend out
  mode tcp
  server gateway 127.0.0.1:{target} send-proxy-v2 {options}
"""


def check_probes(admin: str) -> None:
    """The probes got through, though the endpoint requires a header of everybody."""

    def probed() -> bool:
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=20 * PATIENCE) as page:
            return 'result="passed"' in page.read().decode()

    wait_until(probed, 20)
    (endpoint,) = fetch_status([admin])["endpoints"]
    assert (endpoint["state"], endpoint["probe_failures"]) == ("active", 0), endpoint["last_error"]


@contextmanager
def gateway_to(port: int, *flags: str) -> Iterator[Gateway]:
    admin = f"127.0.0.1:{free_port()}"
    with running(
        *FLAGS, *flags, f"--admin-addr={admin}", endpoints=[f"127.0.0.1:{port}"]
    ) as gateway:
        check_probes(admin)
        yield gateway


@needs_haproxy
@needs_nginx
def test_haproxy_to_nginx_by_version_2() -> None:
    """1,000 clients of HAProxy are told to nginx with their own addresses, whoever served them."""
    front, back = free_port(), free_port()
    with (
        nginx(back, nginx_that_tells(back)),
        gateway_to(back, "--proxy-out=v2") as gateway,
        haproxy(front, sender_v2(front, gateway.port, "proxy-v2-options crc32c")),
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda source: ask(front, source), sources(SESSIONS)))
        assert [words for _, words in answers] == [[own, str(front)] for own, _ in answers]
        wait_until(lambda: len(gateway.lines("session")) >= SESSIONS, 30)
        clients = {line["client"] for line in gateway.lines("session") if "via" in line}
        assert clients >= {own for own, _ in answers}
        vias = [line["via"] for line in gateway.lines("session") if "via" in line]
        assert {via.rpartition(":")[0] for via in vias} == {"127.0.0.1"}


@needs_haproxy
@needs_nginx_stream
def test_nginx_to_haproxy_by_version_1() -> None:
    """The other way round, with the line of text that nginx sends."""
    front, back = free_port(), free_port()
    with (
        haproxy(back, haproxy_that_tells(back)),
        gateway_to(back, "--proxy-out=v1") as gateway,
        nginx(
            front,
            f"stream {{ server {{ listen 127.0.0.1:{front}; proxy_protocol on; "
            f"proxy_pass 127.0.0.1:{gateway.port}; }} }}",
            stream=True,
        ),
    ):
        for source in sources(50):
            own, words = ask(front, source)
            assert words == [own]


@needs_haproxy
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_haproxy_to_haproxy(version: str) -> None:
    """The unique id of a connection goes through where the version has a place for it."""
    front, back = free_port(), free_port()
    options = "proxy-v2-options crc32c,unique-id"
    with (
        haproxy(back, haproxy_that_tells(back)),
        gateway_to(back, f"--proxy-out={version}") as gateway,
        haproxy(front, sender_v2(front, gateway.port, options)),
    ):
        own, words = ask(front, "127.9.9.9")
        expected = "id-" + own.replace(":", "-")
        assert words == ([own, expected] if version == "v2" else [own])


@needs_nginx
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_without_a_sender(version: str) -> None:
    """A gateway that clients reach directly tells nginx their addresses and its own port."""
    back = free_port()
    with nginx(back, nginx_that_tells(back)), gateway_to(back, f"--proxy-out={version}") as gateway:
        own, words = ask(gateway.port, "127.8.8.8")
        assert words == [own, str(gateway.port)]


@needs_haproxy
@needs_nginx
def test_checks_of_haproxy() -> None:
    """HAProxy checks the gateway by its own header: it is up, and nothing is complained about."""
    front, back = free_port(), free_port()
    options = "check inter 50ms check-send-proxy"
    with (
        nginx(back, nginx_that_tells(back)),
        gateway_to(back, "--proxy-out=v2") as gateway,
        haproxy(front, sender_v2(front, gateway.port, options)),
    ):
        wait_until(lambda: len(gateway.lines("session")) >= 10, 20)
        assert ask(front, "127.7.7.7")[1][0].startswith("127.7.7.7:")
        assert not gateway.lines("clients without a PROXY protocol header")
        assert {line["end"] for line in gateway.lines("session")} <= {"client", "endpoint", "reset"}


@needs_haproxy
@needs_nginx
@pytest.mark.slow
def test_everything_that_happens_to_workers() -> None:
    """Scaling, an upgrade and killed workers do not mix up a single address.

    Only who was in a worker that is killed may stay without an answer.
    """
    front, back = free_port(), free_port()
    done = {
        signal.SIGTTIN: "worker ready",
        signal.SIGHUP: "reload complete",
        signal.SIGTTOU: "worker exited",
        signal.SIGUSR2: READY,
    }

    def ask_or_be_cut(source: str) -> tuple[str, list[str]] | None:
        try:
            return ask(front, source)
        except (OSError, AssertionError):
            return None

    with (
        nginx(back, nginx_that_tells(back)),
        gateway_to(back, "--proxy-out=v2", "--drain-timeout=5s") as gateway,
        haproxy(front, sender_v2(front, gateway.port, "proxy-v2-options crc32c")),
        ThreadPoolExecutor(8) as pool,
    ):
        for number, message in done.items():
            before = len(gateway.lines(message))
            asked = pool.map(lambda source: ask(front, source), sources(100))
            gateway.signal(number)
            for own, words in asked:
                assert words == [own, str(front)]
            wait_until(lambda m=message, n=before: len(gateway.lines(m)) > n, 60)  # type: ignore[misc]
        served = pool.map(ask_or_be_cut, sources(100))
        for worker in gateway.workers():
            os.kill(worker, signal.SIGKILL)
        answers = [each for each in served if each is not None]
        assert [words for _, words in answers] == [[own, str(front)] for own, _ in answers]
        own, words = ask(front, "127.9.9.9")
        assert words == [own, str(front)]


@needs_nginx
def test_a_reload_that_turns_it_on(tmp_path: Path) -> None:
    """An endpoint that was inactive for want of headers is probed with them at once."""
    back = free_port()
    config = tmp_path / "gateway.toml"
    config.write_text("")
    flags = (f"--config-file={config}", "--health-check=http", "--health-path=/")
    with (
        nginx(back, nginx_that_tells(back)),
        running(*flags, endpoints=[f"127.0.0.1:{back}"]) as gateway,
    ):
        gateway.wait_line("deactivated endpoint")
        config.write_text('proxy-out = "v2"\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("activated")
        own, words = ask(gateway.port, "127.6.6.6")
        assert words == [own, str(gateway.port)]
