"""A wire with a delay between two network namespaces: ``delay.py NETNS NETNS DELAY_S``.

The kernel's own (netem) is not everywhere. Two TUN devices, ``wire0`` in each namespace, and this
process that carries packets from one to the other, each DELAY_S seconds late.
Plain loopback cannot show what happens to handshakes in flight.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000


def open_tun(netns: str) -> int:
    """Move into the namespace and make ``wire0`` there; the descriptor works from anywhere."""
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"wire0", IFF_TUN | IFF_NO_PI))
    return tun


def main(first: str, second: str, delay_s: float) -> None:
    tuns = open_tun(first), open_tun(second)
    other = {tuns[0]: tuns[1], tuns[1]: tuns[0]}
    flying: list[tuple[float, int, int, bytes]] = []
    count = itertools.count()
    print("up", flush=True)
    while True:
        wait_s = max(flying[0][0] - time.monotonic(), 0.0) if flying else None
        readable, _, _ = select.select(tuns, [], [], wait_s)
        now = time.monotonic()
        for tun in readable:
            try:
                while True:
                    packet = os.read(tun, 65536)
                    heapq.heappush(flying, (now + delay_s, next(count), other[tun], packet))
            except BlockingIOError:
                pass
        while flying and flying[0][0] <= now:
            _, _, tun, packet = heapq.heappop(flying)
            # EIO: that end is not up yet, and the kernel chats (multicast) on the other already.
            with contextlib.suppress(OSError):
                os.write(tun, packet)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
