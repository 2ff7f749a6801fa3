"""Run it: ``python -m tests.chaos --seconds=600 --seed=N``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import random
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.clients import Clients, acked_since
from tests.chaos.disturbances import Disturber
from tests.chaos.network import NEAR
from tests.chaos.records import Records, histogram
from tests.chaos.stage import LISTEN_ECHO, LISTEN_ETCD, Stage

RECOVERY_S = 60.0
"""The longest that clients may go without service after a disturbance is over. Most of it is for a
machine that is busy with other things; see the histogram for what it usually takes."""

NO_ENDPOINT = ("no-endpoint", "dial-failed")


def run(folder: Path, seconds: float, seed: int, say: Callable[[str], None]) -> Records:
    """Disturb for so long, heal everything, and judge."""
    records, chance = Records(), random.Random(seed)
    say(f"seed {seed}")
    with Stage(folder, seed) as stage:
        context = ssl.create_default_context(cafile=stage.authority.file)
        clients = Clients(
            stage.network.namespaces[0],
            records,
            echo=(NEAR, LISTEN_ECHO),
            etcd=(NEAR, LISTEN_ETCD),
            context=context,
            seed=seed,
        )
        try:
            stage.until(acked_since(records, time.time()), 60, "clients are served")
            disturber = Disturber(stage, records, chance, say)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                disturber.disturb()
                recover(stage, records)
                stage.pause(chance.uniform(0.0, 2.0))
            stage.until(lambda: all(g.is_whole() for g in stage.gateways), 120, "all is whole")
        finally:
            clients.stop()
        stage.cluster.wait_healthy(120)
        judge(stage, records)
    return records


def recover(stage: Stage, records: Records) -> None:
    """Note how long it takes until clients that begin now are served."""
    began_at, begin = time.time(), time.monotonic()
    latest = records.disturbances[-1]
    try:
        stage.until(acked_since(records, began_at), RECOVERY_S, "service is back")
    except AssertionError:
        records.violations.append(f"no service within {RECOVERY_S:g} s: {latest}")
    latest.recovered_s = time.monotonic() - begin


def judge(stage: Stage, records: Records) -> None:
    for stream in records.streams:
        records.judge_stream(stream)
    for write in records.writes:
        records.judge_connection(write)
    for gateway in stage.gateways:
        for line in gateway.lines():
            if line["msg"] == "session" and line["end"] in NO_ENDPOINT:
                at = datetime.datetime.fromisoformat(line["ts"]).timestamp()
                records.judge_refusal(at, str(line))
            elif line["msg"] in ("internal error", "worker breaks the protocol", "clients lost"):
                records.violations.append(str(line))
    records.judge_writes(stage.present())


def report(records: Records) -> str:
    whole = sum(stream.end == "whole" for stream in records.streams)
    echoed = sum(stream.echoed for stream in records.streams)
    acked = sum(write.revision > 0 for write in records.writes)
    recovered = [d.recovered_s for d in records.disturbances if d.recovered_s is not None]
    return "\n".join(
        [
            f"{len(records.disturbances)} disturbances",
            f"{len(records.streams)} streams, {whole} of them whole, {echoed:,} bytes echoed",
            f"{len(records.writes)} writes, {acked} of them acknowledged, all of those checked",
            "recovery after a disturbance:",
            histogram(recovered),
            f"{len(records.violations)} violations",
            *records.violations,
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="that of an earlier run")
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        records = run(
            folder,
            options.seconds,
            seed,
            lambda text: print(f"{time.monotonic() - begin:8.2f} s  {text}", flush=True),
        )
    print(report(records))
    return 1 if records.violations else 0


if __name__ == "__main__":
    sys.exit(main())
