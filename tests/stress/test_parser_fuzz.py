"""Every parser against a million damaged inputs; two thousand without GATEWAY_TESTS_LONG."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pytest

from tests.long_tests import LONG
from tests.parser_fuzz import Parser, damage, parsers

CASES = 1_000_000 if LONG else 2_000
STALL_S = 1.0
"""CPU time of one case that is a bug; the usual one takes some microseconds."""

PARSERS = parsers(Path(tempfile.gettempdir()))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("index", range(len(PARSERS)), ids=[parser.name for parser in PARSERS])
def test_a_parser_takes_or_refuses(index: int, tmp_path: Path) -> None:
    """Never another error than its own, and never a stall."""
    parser = parsers(tmp_path)[index]
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    refused = 0
    for data in parser.corpus:
        refused += not takes(parser, data)
    for number in range(CASES):
        data = damage(parser, chance)
        began_at = time.process_time()
        try:
            refused += not takes(parser, data)
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {number}: {data[:500]!r}") from error
        took_s = time.process_time() - began_at
        assert took_s < STALL_S, f"seed {seed}, case {number}: {took_s:.1f} s for {data[:500]!r}"
    print(f"{parser.name}, seed {seed}: {refused:,} of {CASES:,} refused")


def takes(parser: Parser, data: bytes) -> bool:
    """Whether the parser took the input; False if it refused."""
    try:
        parser.parse(data)
    except parser.refuses:
        return False
    return True
