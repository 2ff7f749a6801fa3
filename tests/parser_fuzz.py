"""Inputs that are wrong in every way, for each parser of the product.

A case begins with a good input of the corpus and is damaged: bytes, pieces of other inputs,
numbers at their limits, deep nesting, ends. A parser may take the result or refuse it with its one
error; anything else, and a case that takes longer than a second, is a bug. Inputs that once were
bugs stay in the corpus.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11

from gateway.core import json_codec, messages, wire
from gateway.core.address import (
    parse_admin,
    parse_endpoint,
    parse_listen,
    parse_name,
    parse_nameserver,
    parse_network,
)
from gateway.core.endpoint import Endpoint
from gateway.core.networks import Networks
from gateway.core.proxy_protocol import read_header
from supervisor.cli.settings import read_document
from supervisor.core import handover_document
from supervisor.core.admin.host_check import is_known_host
from supervisor.core.admin.session_list import QueryError, read_query
from supervisor.core.config import build
from supervisor.core.config_error import ConfigError
from supervisor.core.discovery.cluster_report import read_quota, read_status
from supervisor.core.discovery.member_list import parse_list, targets_of
from supervisor.core.discovery.system_names import HostsTable, parse_resolv_conf
from supervisor.core.duration import parse_duration
from supervisor.core.flags import FLAGS
from supervisor.core.health.probing import fault

TOKENS = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\r\n",
        b" ",
        b",",
        b":",
        b"=",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"\\",
        b"%",
    ),
    *(
        b"0",
        b"-1",
        b"65536",
        b"1e999",
        b"9" * 40,
        b"NaN",
        b"null",
        b"true",
        b"\xff\xfe",
        b"\xc3\xa9",
    ),
    *(b"::", b"::ffff:", b"/128", b"unix:", b"@", b"#", b"[" * 2000, b"{" * 2000, b"[[a]]\n" * 50),
    *(
        b"PROXY ",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"1h" * 300,
        b'{"a":' * 2000,
    ),
)


@dataclass(frozen=True, slots=True)
class Parser:
    """``parse`` takes any bytes; ``refuses`` is what it may raise."""

    name: str
    parse: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    corpus: Sequence[bytes]


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """A parser of text, as it comes from a command line: what is no UTF-8 is surrogates."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def _flags(data: bytes) -> object:
    """``NAME=VALUE`` lines, as on the command line."""
    given: dict[str, list[str]] = {}
    names = {flag.name for flag in FLAGS}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        name, _, value = line.partition("=")
        if name in names:
            given.setdefault(name, []).append(value)
    return build(given, {}, {})


def _variables(data: bytes) -> object:
    pairs = (line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n"))
    return build({}, {name: value for name, _, value in pairs}, {})


class Toml:
    """A config file, read as at a start."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "fuzzed.toml"

    def __call__(self, data: bytes) -> object:
        self._path.write_bytes(data)
        return build({}, {}, read_document(str(self._path), "--config-file"))


def _hosts(data: bytes) -> object:
    hosts = HostsTable()
    hosts.add(data.decode("utf-8", "replace").splitlines())
    return hosts.addresses("localhost")


def _lines(data: bytes) -> object:
    reader = wire.LineReader(max_line_bytes=10_000)
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        for line in reader.feed(part):
            wire.count_descriptors(line)
            wire.decode(line)
    return None


def _json(read: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda data: read(json_codec.loads(data))


def _member_status(document: Any) -> object:
    if not isinstance(document, dict):
        raise ValueError("the caller takes objects only")
    return read_status(document)


def _query(data: bytes) -> object:
    pairs = (part.partition("=") for part in data.decode("utf-8", "replace").split("&"))
    return read_query([(name, value) for name, _, value in pairs])


def _http(data: bytes) -> object:
    """An answer of an endpoint, read as the probes do."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=16384)
    connection.send(h11.Request(method="GET", target="/health", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, body = 0, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return fault(status, body)
        elif not isinstance(event, h11.InformationalResponse):
            return None


SNAPSHOT = messages.Snapshot(
    7, (Endpoint("a:1", ("10.0.0.1",), 1), Endpoint("[::1]:2", ("::1",), 2))
)
MEMBERS = (
    b'{"header":{"cluster_id":"14841639068965178418","member_id":"1"},"members":[{"ID":"1","name":'
    b'"infra0","peerURLs":["http://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]},'
    b'{"ID":"2","peerURLs":[],"isLearner":true}]}'
)
STATUS = (
    b'{"header":{"cluster_id":"1","member_id":"2","raft_term":"3"},"version":"3.5.1","dbSize":"20480",'
    b'"leader":"2","raftTerm":"3","errors":["NOSPACE"],"isLearner":false}'
)
V2 = b"\r\n\r\n\0\r\nQUIT\n"


def parsers(folder: Path) -> list[Parser]:
    """All parsers; ``folder`` is for those that read files."""
    refused = (ValueError,)
    addresses = [
        b"127.0.0.1:2379",
        b"[::1]:80",
        b"http://a.example:1",
        b"unix:/run/a,mode=0660",
        b":1",
    ]
    return [
        Parser("duration", _text(parse_duration), refused, [b"1h30m", b"300ms", b"1.5h", b"-1s"]),
        *(
            Parser(parse.__name__, _text(parse), refused, addresses)
            for parse in (parse_endpoint, parse_listen, parse_nameserver, parse_admin, parse_name)
        ),
        Parser(
            "networks",
            _text(lambda text: Networks([str(parse_network(each)) for each in text.split(",")])),
            refused,
            [b"10.0.0.0/8,::1/128", b"::ffff:10.0.0.0/104", b"192.0.2.1"],
        ),
        Parser(
            "flags",
            _flags,
            (ConfigError,),
            [
                "\n".join(f"{flag.name}={flag.default}" for flag in FLAGS if flag.default).encode(),
                b"endpoints=https://a:1,b:2\nlisten-addr=:1\nworkers=4\nretry-delay=3s",
                b"proxy-in=10.0.0.0/8,unix\nallow=::/0\nhealth-min-active=50%",
            ],
        ),
        Parser(
            "variables",
            _variables,
            (ConfigError,),
            [b"GATEWAY_ENDPOINTS=a:1\nGATEWAY_WORKERS=auto", b"GATEWAY_ALLOW=10.0.0.0/8"],
        ),
        Parser(
            "config file",
            Toml(folder),
            (ConfigError,),
            [
                b'endpoints = ["a:1", "b:2"]\nworkers = 4\nretry-delay = "3s"\naccess-log = true\n',
                b'[table]\na = 1\n[[x]]\nb = 1979-05-27T07:32:00Z\nc = """\n"""\n',
                b"a = " + b"[" * 5000,
                b"a = " + b"{b = " * 3000,
                b"workers = " + b"9" * 5000,
            ],
        ),
        Parser(
            "hosts", _hosts, (), [b"127.0.0.1 localhost\n::1 localhost # x\n", b"10.0.0.1 a b c"]
        ),
        Parser(
            "resolv.conf",
            _text(lambda text: parse_resolv_conf(text, local_domain=text[:9], extra_options=text)),
            (),
            [b"nameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2 timeout:1 rotate\n"],
        ),
        Parser(
            "control channel",
            _lines,
            (wire.WireError,),
            [
                wire.encode(SNAPSHOT),
                wire.encode(messages.Adopt(3), descriptors=2),
                wire.encode(messages.Drain(1.5, close_listeners=True)),
                b"[" * 5000 + b"\n",
            ],
        ),
        Parser(
            "handover state",
            _json(handover_document.decode),
            (json_codec.DecodeError,),
            [
                b'{"format":1,"workers":[],"counters":{}}',
                b'{"listen":["a:1"],"rows":[[1,2]],"gen":{}}',
            ],
        ),
        Parser(
            "sessions query",
            _query,
            (QueryError,),
            [b"endpoint=a:1&limit=5&sort=bytes", b"next=1.0.2"],
        ),
        Parser(
            "host header",
            _text(lambda text: is_known_host(text, ("gw.test",))),
            (),
            [b"localhost:9379", b"[::1]:1", b"gw.test", b"10.0.0.1"],
        ),
        Parser(
            "health answer",
            _http,
            (h11.RemoteProtocolError,),
            [
                b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"health":"true"}',
                b"HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 5000,
            ],
        ),
        Parser(
            "member list",
            _json(lambda document: targets_of(parse_list(document), from_elsewhere=True)),
            refused,
            [MEMBERS],
        ),
        Parser("member status", _json(_member_status), refused, [STATUS]),
        Parser(
            "quota", _text(read_quota), (), [b"etcd_server_quota_backend_bytes 2.147483648e+09\n"]
        ),
        Parser(
            "PROXY header",
            read_header,
            (),
            [
                b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\nhello",
                b"PROXY TCP6 ::1 ::2 1 2\r\n",
                b"PROXY UNKNOWN\r\n",
                V2 + b"\x21\x11\0\x0c" + bytes(12),
                V2 + b"\x20\0\0\0",
                V2 + b"\x21\x21\0\x2b" + bytes(36) + b"\x03\0\x04abcd",
            ],
        ),
    ]


def damage(parser: Parser, chance: random.Random) -> bytes:
    """One case."""
    data = bytearray(chance.choice(parser.corpus))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 6))):
        at = chance.randint(0, len(data))
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                del data[at : at + chance.choice((1, 2, 10, len(data)))]
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 20)]
            case 4:
                other = chance.choice(parser.corpus)
                data[at : at + 4] = other[chance.randint(0, len(other)) :]
            case _:
                if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
    return bytes(data)
