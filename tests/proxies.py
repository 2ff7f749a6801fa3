"""HAProxy and nginx in front of and behind a gateway: each says what it learned of its client."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wait_until

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="HAProxy is not installed"
)
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
needs_nginx_stream = pytest.mark.skipif(
    not STREAM_MODULE.exists(), reason="nginx's module for streams is not installed"
)


@contextlib.contextmanager
def haproxy(port: int, sections: str) -> Iterator[None]:
    """HAProxy with these sections, once ``port`` takes connections."""
    config = f"""
global
  maxconn 4000
defaults
  timeout connect 10s
  timeout client 60s
  timeout server 60s
{sections}
"""
    with _running(["haproxy", "-db", "-f"], "haproxy.cfg", config, port):
        yield


@contextlib.contextmanager
def nginx(port: int, sections: str, *, stream: bool = False) -> Iterator[None]:
    """nginx with these sections, once ``port`` takes connections."""
    with tempfile.TemporaryDirectory() as folder:
        config = f"""
{f"load_module {STREAM_MODULE};" if stream else ""}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 4096; }}
{sections.replace("FOLDER", folder)}
"""
        argv = ["nginx", "-p", folder, "-e", f"{folder}/error.log", "-c"]
        with _running(argv, "nginx.conf", config, port):
            yield


@contextlib.contextmanager
def _running(argv: list[str], name: str, config: str, port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(config)
        log = Path(folder) / "log"
        with log.open("w") as output:
            process = subprocess.Popen([*argv, str(path)], stdout=output, stderr=output)
        try:
            wait_until(lambda: process.poll() is not None or _takes(port), 20, f"{name} is up")
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(60)


def _takes(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def nginx_that_tells(port: int) -> str:
    """Sections for an nginx that answers with what the PROXY protocol header says."""
    return f"""
http {{
  access_log off;
  client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3;
  uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
  server {{
    listen 127.0.0.1:{port} proxy_protocol backlog=2048;
    location / {{
      return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_port\\n";
    }}
  }}
}}
"""


def haproxy_that_tells(port: int) -> str:
    """Sections for an HAProxy that answers with its client, and the id that its header has."""
    return f"""
frontend tell
  mode http
  bind 127.0.0.1:{port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] %[fc_pp_unique_id]\\n"
"""  # noqa: E501


def ask(port: int, source: str = "127.0.0.1") -> tuple[str, list[str]]:
    """Our own address, and the words of the answer to an HTTP request."""
    with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as client:
        own = "{}:{}".format(*client.getsockname())
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1:2] == [b"200"], answer
    return own, body.decode().split()
