"""``make simulate``: run after run, until the time is over; a broken promise becomes a case.

With ``--plant NAME`` a mistake is in the product, and the run that finds it is kept.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.mistakes import MISTAKES, planted
from tests.simulation.plan import Kind, draw_plan, write_case
from tests.simulation.shrink import shrink
from tests.simulation.simulation import Outcome, try_seed

CASES = Path(__file__).parent / "cases"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="the first seed; default: any")
    parser.add_argument("--plant", choices=sorted(MISTAKES), default="")
    args = parser.parse_args(argv)
    seed = random.randrange(10**9) if args.seed is None else args.seed
    with planted(args.plant):
        outcome, seed = run_for(args.seconds, seed)
        if outcome.violation is None:
            return 1 if args.plant else 0
        print(f"seed {seed}: {outcome.violation}; shrinking")
        plan = shrink(seed, draw_plan(seed), outcome.violation.promise)
    path = CASES / f"{(args.plant or f'seed {seed}').replace(' ', '-').replace(chr(39), '')}.json"
    write_case(path, seed, plan, found=outcome.violation.promise, planted=args.plant)
    print(f"kept with {len(plan)} events: {path}")
    return 0 if args.plant else 1


def run_for(seconds: float, seed: int) -> tuple[Outcome, int]:
    """Runs of successive seeds until the time is over or a promise is broken; the last one."""
    began_s, steps, runs = time.process_time(), 0, 0
    happened: Counter[Kind] = Counter()
    while True:
        outcome = try_seed(seed, draw_plan(seed))
        steps += outcome.steps
        runs += 1
        happened += outcome.happened
        used_s = time.process_time() - began_s
        if outcome.violation is not None or used_s >= seconds:
            break
        seed += 1
    per_minute = steps / used_s * 60
    print(f"{runs} runs, last seed {seed}, {steps:,} steps, {per_minute:,.0f} a minute of CPU")
    print(", ".join(f"{kind}: {count}" for kind, count in happened.most_common()))
    return outcome, seed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
