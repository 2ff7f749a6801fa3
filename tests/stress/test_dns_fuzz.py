"""A million wrong replies of nameservers; a few thousand without GATEWAY_TESTS_LONG."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests import dns_fuzz
from tests.long_tests import LONG

CASES = 1_000_000 if LONG else 2_000


@pytest.mark.timeout(3600)
def test_a_million_wrong_replies() -> None:
    """None raises, none stalls, and none is taken for more than it says."""
    seed = random.randrange(2**32)
    cases = dns_fuzz.Cases(seed, beginnings=CASES // 100)
    met = Counter[str]()
    for number in range(CASES):
        case = cases.next()
        try:
            meaning = dns_fuzz.check(case)
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {number}: {case}") from error
        met[meaning.kind.value if meaning else "ignored"] += 1
    print(f"seed {seed}: {dict(met)}")
