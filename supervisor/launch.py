"""The console command's first step; installed as the module ``etcd_gateway``.

``supervisor`` and ``gateway`` are generic names. If another package has one of them in front of
ours, our own code cannot be imported to say so: this module can, because its name is nobody
else's. It imports nothing that is not the standard library's before it has looked.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

PARTS = {"supervisor": "master.py", "gateway": "log_sink.py"}
"""A module of each of our packages, to know them by."""

PROCESS_MANAGER = "supervisord.py"
"""A module of PyPI's supervisor, which installs itself into the same folder as ours."""


EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""


def main() -> int:
    """Check whose packages they are, then run the command line; the exit code."""
    # Whoever started us may have left it ignored. Then the kernel would throw away how a child
    # ended, and neither a worker's death nor an upgrade's trial could be told.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        return _run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run() -> int:
    for name, part in PARTS.items():
        if reason := find_foreign_package(name, part):
            advice = "install etcd-gateway into an environment of its own"
            print(f"etcd-gateway: {reason}; {advice}", file=sys.stderr)
            return 1
    if sys.argv[1:2] == ["start"]:
        from supervisor.system import signals

        signals.hold()
    from supervisor.cli import main as cli

    return cli.main()


def find_foreign_package(name: str, part: str) -> str:
    """What is wrong with the package that ``import name`` finds; empty if it is ours."""
    spec = importlib.util.find_spec(name)
    homes = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = homes[0] if homes else (spec.origin if spec is not None else None) or "nowhere"
    if not any(os.path.exists(os.path.join(home, part)) for home in homes):
        return f"the package {name} in {found} is not etcd-gateway's"
    if any(os.path.exists(os.path.join(home, PROCESS_MANAGER)) for home in homes):
        return f"the package {name} in {found} is mixed with the process manager's"
    return ""
