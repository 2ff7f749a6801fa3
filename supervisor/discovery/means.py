"""What resolutions are made with, whatever the configuration: it outlives reloads."""

from __future__ import annotations

import random
from dataclasses import field

from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.backoff import Draw
from supervisor.core.discovery.search import SearchMemory
from supervisor.core.discovery.system_names import Files
from supervisor.system.limits import UNLIMITED
from supervisor.system.shared_tls import SharedTls


@dataclass(slots=True, kw_only=True)
class Means:
    """``max_lookups`` and ``max_handshakes``: for how many at once there are descriptors.

    ``search_memory`` says which names of the search list the answers that are in use are of.
    """

    log: Log | None = None
    files: Files = field(default_factory=Files)
    draw: Draw = random.randrange
    shared_tls: SharedTls = field(default_factory=SharedTls)
    search_memory: SearchMemory = field(default_factory=SearchMemory)
    max_lookups: int = UNLIMITED
    max_handshakes: int = UNLIMITED
