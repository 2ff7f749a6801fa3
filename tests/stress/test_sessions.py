"""Sessions against the model of what each side must have seen, by the thousand."""

from __future__ import annotations

import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.gateway import Gateway
from tests.long_tests import LONG, only_long
from tests.session_machine import Stage, machine_on
from tests.stress.soak import Soak
from tests.support import wait_until
from tests.wires import enter, loopback, prefix

SEQUENCES = 10_000
SOAK_S = 600.0 if LONG else 5.0
SESSIONS = 2000 if LONG else 100
MTUS = (1500, 65_536)

FLAGS = [
    "--health-check=off", "--tcp-user-timeout=2s", "--keepalive-time=1s", "--access-log",
    "--drain-timeout=5s",
]  # fmt: skip


@only_long
@pytest.mark.timeout(3600)
def test_ten_thousand_sequences() -> None:
    """Whatever both sides do, each sees what the other did."""
    with Stage() as stage:
        run_state_machine_as_test(
            machine_on(stage),
            settings=settings(max_examples=SEQUENCES, stateful_step_count=30),
        )
        assert stage.sequences >= SEQUENCES


def soak(namespace: str, count: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Sessions in the namespace with a gateway of its own: what the models and the log counted."""
    enter(namespace)
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with Gateway(*FLAGS, endpoints=[endpoint], prefix=prefix(namespace)) as gateway:
            gateway.wait_ready()
            driver = Soak(gateway.address, listener, count, seed)
            try:
                driver.run(SOAK_S)
            except AssertionError as error:
                name = str(error).split(": ")[0]
                said = [line for line in gateway.lines() if line.get("client") == name]
                raise AssertionError(f"{error}; the gateway said {said}") from error
            wait_until(lambda: len(gateway.lines("session")) == driver.started, 30, "all logged")
            lines = gateway.lines()
    assert [line for line in lines if line["level"] == "error"] == []
    return driver.finished, Counter(line["end"] for line in lines if line["msg"] == "session")


@pytest.mark.own_cpu
@pytest.mark.timeout(1200)
def test_thousands_of_sessions_at_a_time() -> None:
    """Each with random behaviour, on a wire of each MTU: nobody sees what did not happen."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with (
        loopback(MTUS[0]) as narrow,
        loopback(MTUS[1]) as wide,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        futures = [pool.submit(soak, each, SESSIONS // 2, seed) for each in (narrow, wide)]
        for mtu, future in zip(MTUS, futures, strict=True):
            finished, ends = future.result()
            print(f"MTU {mtu}: {dict(finished)}, {dict(ends)}")
            assert finished["orderly"] > SESSIONS / 4
            assert finished["cut"] > 0
            assert ends["drained"] == ends["error"] == ends["dial-failed"] == 0
