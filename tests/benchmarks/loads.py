"""The loads: wrk, iperf3, idle sessions, and the first byte; with the backends they go to."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.benchmarks.processes import BenchmarkError, Process, find_program, is_listening
from tests.support import free_port

HOST = "127.0.0.1"
BODY = "0123456789" * 5
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
BULK_BYTES = 64 * 2**20
_START_LIMIT_S = 10.0
_FEW = 3
"""Endpoints that speak TLS, and HTTP/2."""
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


class NothingAnsweredError(BenchmarkError):
    """No request of a load was answered."""


@dataclass(frozen=True, slots=True)
class Answering:
    """An HTTP server that answers 50 bytes on every one of its endpoints."""

    process: Process
    endpoints: tuple[str, ...]
    tls_endpoints: tuple[str, ...]
    http2_endpoints: tuple[str, ...]


@contextmanager
def answering_server(directory: Path, cpus: frozenset[int], count: int = 3) -> Iterator[Answering]:
    """An nginx with ``count`` addresses of loopback; each counts as an endpoint."""
    port, tls_port, http2_port = free_port(), free_port(), free_port()
    certificate, key = _certificate(directory)
    hosts = [f"127.{1 + i // 62500}.{i // 250 % 250}.{1 + i % 250}" for i in range(count)]
    listens = "\n".join(f"    listen {host}:{port} backlog=4096;" for host in hosts)
    listens += "".join(
        f"\n    listen {host}:{tls_port} ssl backlog=4096;"
        f"\n    listen {host}:{http2_port} http2 backlog=4096;"
        for host in hosts[:_FEW]
    )
    (directory / "bulk").write_bytes(bytes(BULK_BYTES))
    text = f"""
daemon off;
user root;
pid {directory}/nginx-backend.pid;
error_log {directory}/nginx-backend-error.log error;
worker_processes 1;
events {{ worker_connections 40000; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_header_timeout 1h;
  sendfile on;
  server {{
{listens}
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_session_cache off;
    ssl_session_tickets off;
    location = / {{ return 200 "{BODY}"; }}
    location = /bulk {{ root {directory}; }}
  }}
}}
"""
    path = directory / "nginx-backend.conf"
    path.write_text(text)
    argv = [_require("nginx"), "-c", str(path), "-p", str(directory)]
    process = Process("backend", argv, cpus=cpus, log=directory / "nginx-backend.log")
    try:
        process.wait_for(lambda: is_listening(port), _START_LIMIT_S, "listening socket")
        yield Answering(
            process,
            tuple(f"{host}:{port}" for host in hosts),
            tuple(f"{host}:{tls_port}" for host in hosts[:_FEW]),
            tuple(f"{host}:{http2_port}" for host in hosts[:_FEW]),
        )
    finally:
        process.stop()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for the endpoints, and its key; wrk does not verify it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = directory / "backend.crt", directory / "backend.key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


@contextmanager
def sinking_server(directory: Path, cpus: frozenset[int]) -> Iterator[str]:
    """An iperf3 server; its address."""
    port = free_port()
    argv = [_require("iperf3"), "-s", "-B", HOST, "-p", str(port)]
    process = Process("iperf3 server", argv, cpus=cpus, log=directory / "iperf3.log")
    try:
        process.wait_for(lambda: is_listening(port), _START_LIMIT_S, "listening socket")
        yield f"{HOST}:{port}"
    finally:
        process.stop()


@dataclass(frozen=True, slots=True)
class Answers:
    """What wrk saw."""

    count: int
    rate: float
    p50_us: float
    p99_us: float


def load_requests(
    port: int,
    connections: int,
    duration_s: int,
    cpus: frozenset[int],
    *,
    reconnect: bool = False,
    scheme: str = "http",
) -> Answers:
    """Requests over ``connections`` sessions, or each over a new one if ``reconnect``."""
    argv = ["-t1", f"-c{connections}", f"-d{duration_s}", "--timeout", "10s", "--latency"]
    if reconnect:
        argv += ["-H", "Connection: close"]
    text = _run([_require("wrk"), *argv, f"{scheme}://{HOST}:{port}/"], cpus, duration_s + 30)
    return parse_wrk(text)


def load_streams(port: int, duration_s: int, cpus: frozenset[int]) -> int:
    """Requests that were answered over ten HTTP/2 sessions with 100 streams under way in each."""
    argv = ["-c10", "-m100", f"-D{duration_s}", f"http://{HOST}:{port}/"]
    text = _run([_require("h2load"), *argv], cpus, duration_s + 30)
    seen = re.search(r"requests: .* (\d+) succeeded, (\d+) failed", text)
    if seen is None or int(seen[2]) or not int(seen[1]):
        raise BenchmarkError(f"h2load: no figures in its report: {text.strip()[-200:]}")
    return int(seen[1])


def parse_wrk(text: str) -> Answers:
    """Read wrk's report; failed requests are an error, for they would be cheap ones."""
    errors = re.search(r"Socket errors: (.+)|Non-2xx.*: (\d+)", text)
    if errors and re.search(r"[1-9]", errors[0].partition(":")[2].replace("2xx", "")):
        raise BenchmarkError(f"wrk: {errors[0]}")
    count = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    shares = {
        share: float(value) * _UNITS_US[unit]
        for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", text)
    }
    if not (count and rate and int(count[1]) and len(shares) == 2):
        raise NothingAnsweredError(f"wrk: no figures in its report: {text.strip()[-200:]}")
    return Answers(int(count[1]), float(rate[1]), shares["50"], shares["99"])


def load_bulk(port: int, streams: int, duration_s: int, cpus: frozenset[int]) -> int:
    """Bytes that arrived over ``streams`` parallel streams."""
    argv = ["-c", HOST, "-p", str(port), "-P", str(streams), "-t", str(duration_s), "-J"]
    report = json.loads(_run([_require("iperf3"), *argv], cpus, duration_s + 30))
    if "error" in report:
        raise BenchmarkError(f"iperf3: {report['error']}")
    received: int = report["end"]["sum_received"]["bytes"]
    return received


@contextmanager
def steady_bulk(port: int, rate_mb_s: int, directory: Path, cpus: frozenset[int]) -> Iterator[None]:
    """One session that carries ``rate_mb_s`` megabytes a second towards the client meanwhile."""
    argv = [_require("curl"), "-s", "-o", "/dev/null", "--limit-rate", f"{rate_mb_s}M"]
    url = f"http://{HOST}:{port}/bulk?[1-100000]"
    process = Process("curl", [*argv, url], cpus=cpus, log=directory / "curl.log")
    try:
        yield
    finally:
        process.stop()


@contextmanager
def idle_sessions(port: int, count: int) -> Iterator[None]:
    """``count`` sessions, each of which has carried one request and then keeps silent."""
    clients = []
    try:
        for _ in range(count):
            client = socket.create_connection((HOST, port), timeout=10.0)
            clients.append(client)
            client.sendall(REQUEST)
            if BODY.encode() not in client.recv(4096):
                raise BenchmarkError("an idle session got no complete answer")
        yield
    except OSError as error:
        raise BenchmarkError(f"session {len(clients) + 1} of {count}: {error}") from error
    finally:
        for client in clients:
            client.close()


def first_byte_s(process: Process, port: int, limit_s: float) -> float:
    """Time from exec of ``process`` to the first byte that comes through it."""
    process.wait_for(lambda: _answered(port), limit_s, "answer")
    return time.monotonic() - process.started_at


def _answered(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as client:
            client.sendall(REQUEST)
            return bool(client.recv(1))
    except OSError:
        return False


def _run(argv: Sequence[str], cpus: frozenset[int], limit_s: float) -> str:
    taskset = [_require("taskset"), "-c", ",".join(map(str, sorted(cpus)))]
    done = subprocess.run([*taskset, *argv], capture_output=True, text=True, timeout=limit_s)
    return done.stdout + done.stderr


def _require(program: str) -> str:
    found = find_program(program)
    if found is None:
        raise BenchmarkError(f"{program} is not installed")
    return found
