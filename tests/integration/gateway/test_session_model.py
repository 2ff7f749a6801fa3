"""Sessions against a model of what each side must have seen: see ``tests/session_model.py``."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.session_machine import Stage, machine_on

SEQUENCES = 120
"""``stress/test_sessions.py`` has ten thousand, in ``make stress``."""
STEPS = 20


@pytest.mark.slow(seconds=18)
def test_whatever_both_sides_do_each_sees_what_the_other_did() -> None:
    """Sends, urgent bytes, ends, closes, resets, pauses, lost endpoints, drains: at random."""
    with Stage() as stage:
        run_state_machine_as_test(
            machine_on(stage),
            settings=settings(max_examples=SEQUENCES, stateful_step_count=STEPS),
        )
        assert stage.sequences >= SEQUENCES
