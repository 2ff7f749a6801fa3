"""The table of the README against the peers, made from the page of performance."""

from __future__ import annotations

import pytest

from tests.comparison import SUBJECTS, draw, read_medians

PAGE = """
### idle session

|                  |  bytes | descriptors |
| ---------------- | -----: | ----------: |
| **etcd-gateway** |    913 |         2.0 |
| nginx stream     |  9,968 |         2.0 |

### idle proxy

| Envoy | 64.3 |
"""


def test_medians_are_those_of_the_table_under_the_heading() -> None:
    """By subject, as the page spells them; what is in bold there is the same subject."""
    assert read_medians(PAGE, "idle session") == {"etcd-gateway": "913", "nginx stream": "9,968"}
    with pytest.raises(KeyError):
        read_medians(PAGE, "idle")


def test_every_row_has_a_figure_of_every_subject() -> None:
    """Each table is on the page, and has the median of each program."""
    rows = [line.strip("| ").split(" | ") for line in draw().splitlines()[2:]]
    assert [len(row) for row in rows] == [len(SUBJECTS) + 1] * len(rows)
    assert all(all(row) for row in rows)
