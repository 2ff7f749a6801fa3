"""USR2 under hostile hands: twice, with TERM on its heels, with a program that does not start."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.backends import EchoServer
from tests.gateway import running
from tests.support import wait_until
