"""The console command's first step; installed as the module ``etcd_gateway``.

``supervisor`` and ``gateway`` are generic names. If another package has one of them in front of
ours, our own code cannot be imported to say so: this module can, because its name is nobody
else's. It imports nothing that is not the standard library's before it has looked.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> int:
    """Check whose packages they are, then run the command line; the exit code."""
    for name, part in (("supervisor", "cli.py"), ("gateway", "sink.py")):
        spec = importlib.util.find_spec(name)
        homes = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not any(os.path.exists(os.path.join(home, part)) for home in homes):
            found = os.path.dirname(spec.origin) if spec is not None and spec.origin else "nowhere"
            print(
                f"etcd-gateway: the package {name} in {found} is not etcd-gateway's; "
                "install etcd-gateway into an environment of its own",
                file=sys.stderr,
            )
            return 1
    from supervisor import cli

    return cli.main()
