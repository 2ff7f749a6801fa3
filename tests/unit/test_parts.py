"""The facts that the parts of the master share."""

from __future__ import annotations

import os

import pytest

from supervisor.core.config import Config
from supervisor.core.handover_state import HandoverState
from supervisor.handover.state import HANDOVER_VARIABLE, write_state
from supervisor.parts import Parts


def test_workers_that_were_replaced_count_before_there_is_a_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an upgrade the counter does not begin at 0, not for a moment."""
    state = HandoverState(restarts={"exited": 3})
    monkeypatch.setenv(HANDOVER_VARIABLE, str(write_state(state)))
    parts = Parts(Config())
    assert parts.pool is None
    assert parts.worker_restarts == {"exited": 3}
    parts.left.commit(os.environ)
    parts.log.close()
