"""Network namespaces for tests: hosts on one wire, each with an address of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

T = TypeVar("T")

CLONE_NEWNET = 0x40000000


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def enter(namespace: str) -> None:
    """Move the calling thread, and threads and processes that it starts, into the namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def inside(namespace: str, make: Callable[[], T]) -> T:
    """Make something in the namespace; a socket stays there, whoever uses it."""

    def run() -> T:
        enter(namespace)
        return make()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=namespace) as thread:
        return thread.submit(run).result()


@contextlib.contextmanager
def loopback(mtu: int) -> Iterator[str]:
    """A namespace with nothing but a loopback interface of this MTU; its name."""
    name = f"gwlo-{os.getpid()}-{mtu}"
    try:
        ip("netns", "add", name)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("needs root and ip(8)")
    try:
        ip("-n", name, "link", "set", "lo", "mtu", str(mtu), "up")
        yield name
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", name)


def prefix(namespace: str) -> list[str]:
    """What to put in front of a command to run it there; "" is where we are."""
    return ["ip", "netns", "exec", namespace] if namespace else []


@contextlib.contextmanager
def cut_off(ways: Sequence[tuple[str, str]]) -> Iterator[None]:
    """No way from each of these namespaces to the address beside it."""
    for namespace, address in ways:
        ip("-n", namespace, "route", "add", "blackhole", f"{address}/32")
    yield
    for namespace, address in ways:
        ip("-n", namespace, "route", "del", "blackhole", f"{address}/32")


@contextlib.contextmanager
def hosts(*addresses: str) -> Iterator[list[str]]:
    """One namespace per address, all on a switch in the first one; their names.

    Skips the test where namespaces cannot be made.
    """
    names = [f"gw{n}-{os.getpid()}" for n in range(len(addresses))]
    first, made = names[0], []
    try:
        for name in names:
            try:
                ip("netns", "add", name)
            except (subprocess.CalledProcessError, FileNotFoundError):
                pytest.skip("needs root and ip(8)")
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", first, "link", "add", "eth0", "type", "bridge")
        for n, (name, address) in enumerate(zip(names, addresses, strict=True)):
            if name != first:
                ip("-n", first, "link", "add", f"port{n}", "type", "veth",
                   "peer", "name", "eth0", "netns", name)  # fmt: skip
                ip("-n", first, "link", "set", f"port{n}", "master", "eth0", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in made:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)
