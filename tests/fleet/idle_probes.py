"""``python -m tests.fleet.idle_probes``: what real gateways ask of one member that nobody uses.

Starts ``--hosts`` gateways of one worker each in front of one TCP server on loopback, waits until
all are ready, and counts for ``--seconds``: connections that were begun (SYNs on the wire), and
connections that the server's program accepted. Needs root, for the packets. ``--program`` is a
checkout of another version of the gateway to measure; what follows ``--`` are its flags.

The figures of ``docs/fleet.md``::

    python -m tests.fleet.idle_probes
    git worktree add /tmp/before 29d1f85
    python -m tests.fleet.idle_probes --program /tmp/before
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gateway import COMMAND, READY, environment
from tests.support import free_port, wait_until

ETH_P_IP = 0x0800
ETHERNET_BYTES = 14
SYN, ACK = 0x02, 0x10

SO_RCVBUFFORCE = 33
BUFFER_BYTES = 64 << 20
"""Everything on loopback passes by, also while this program waits for a CPU."""

SETTLING_S = 10.0
"""After the last gateway is ready: the probes of its start are over."""


@dataclass(slots=True)
class Counts:
    """What was seen of one member in so many seconds."""

    seconds: float
    begun: int = 0
    accepted: int = 0

    def __str__(self) -> str:
        return (
            f"{self.begun} probes in {self.seconds:.0f} s, {self.begun / self.seconds:.2f} per"
            f" second; the member's program accepted {self.accepted} connections"
        )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.idle_probes")
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--program", type=Path)
    parser.add_argument("flags", nargs="*")
    asked = parser.parse_args(arguments)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as member,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as packets,
    ):
        packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        packets.bind(("lo", 0))
        port = member.getsockname()[1]
        with _gateways(asked.hosts, port, asked.flags, asked.program):
            _count(member, packets, SETTLING_S)
            print(_count(member, packets, asked.seconds))


@contextlib.contextmanager
def _gateways(hosts: int, port: int, flags: Sequence[str], program: Path | None) -> Iterator[None]:
    """So many gateways, ready; ended afterwards."""
    env = environment({"PYTHONPATH": str(program)} if program else None)
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as directory:
        logs = [Path(directory) / f"{number}.log" for number in range(hosts)]
        try:
            for number, log in enumerate(logs):
                argv = [
                    *COMMAND, "start", "--workers=1", "--log-format=json",
                    f"--listen-addr=127.0.0.1:{free_port()}",
                    f"--endpoints=127.0.0.1:{port}", *flags,
                ]  # fmt: skip
                with log.open("wb") as file:
                    running.append(
                        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=file, env=env)
                    )
                if number % 4 == 3:  # a machine of two CPUs starts no more at once
                    wait_until(functools.partial(_is_ready, log), 300, str(log))
            wait_until(lambda: all(map(_is_ready, logs)), 300, "all ready")
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(60)


def _is_ready(log: Path) -> bool:
    return READY in log.read_text()


def _count(member: socket.socket, packets: socket.socket, seconds: float) -> Counts:
    """Accept and count until the time is over; connections are closed when the other side is."""
    counts, port = Counts(seconds), member.getsockname()[1]
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(member, selectors.EVENT_READ)
        selector.register(packets, selectors.EVENT_READ)
        while (left_s := until - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                if key.fileobj is packets:
                    counts.begun += _is_syn_to(port, *packets.recvfrom(128))
                elif key.fileobj is member:
                    counts.accepted += 1
                    selector.register(member.accept()[0], selectors.EVENT_READ)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    with contextlib.suppress(ConnectionError):
                        if key.fileobj.recv(4096):
                            continue
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
        for key in tuple(selector.get_map().values()):
            if key.fileobj not in (member, packets):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
    return counts


def _is_syn_to(port: int, frame: bytes, source: tuple[str, int, int, int, bytes]) -> bool:
    """Whether the frame begins a connection to this port. Loopback shows each frame twice."""
    if source[2] == socket.PACKET_OUTGOING:
        return False
    packet = frame[ETHERNET_BYTES:]
    if packet[9] != socket.IPPROTO_TCP:
        return False
    segment = packet[4 * (packet[0] & 0x0F) :]
    (to_port,) = struct.unpack_from("!H", segment, 2)
    return bool(to_port == port and segment[13] & (SYN | ACK) == SYN)


if __name__ == "__main__":
    main(sys.argv[1:])
