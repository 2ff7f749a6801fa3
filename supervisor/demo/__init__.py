"""The demo: what the gateway does, on one machine, with nothing else installed.

Three backends, a nameserver with SRV records for them and the real ``etcd-gateway start`` in
front, each a process of its own, all on loopback. The parts:

- ``backend``: a small HTTP server that says its name; a program, so that it can be killed.
- ``backends``: the plans of three of them, or of a three-member etcd cluster.
- ``children``: processes that are started, watched and stopped.
- ``nameserver``: an authoritative DNS server for one zone file.
- ``tour``: what is shown, and whether each of it came out as expected.
- ``stage``: puts it all together.
"""

from __future__ import annotations


def run(etcd: bool = False, once: bool = False) -> int:
    """Show the gateway until a signal ends it; the exit code.

    ``etcd``: in front of a real three-member etcd cluster instead of the small backends.
    ``once``: leave after the tour, with 1 if something on it did not hold.
    """
    # Not at the top: the backends import this package too, and need nothing of the stage.
    from supervisor.demo.stage import perform

    return perform(etcd=etcd, once=once)
