"""A real worker without a master: what a tool such as callgrind can watch from its first moment.

``python -m tests.lone_worker LISTEN_PORT ENDPOINT_PORT``: relays from one port of 127.0.0.1 to the
other until it is killed. It prints ``listening`` when it accepts clients.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from gateway import heartbeat
from gateway.core import messages, wire
from gateway.core.address import HostPort
from gateway.core.endpoint import Endpoint
from gateway.ingress.listener import open_listener
from gateway.scoreboard import Scoreboard
from gateway.sessions import keepalive
from gateway.worker import WorkerStart, run
from gateway.worker_spec import WorkerSpec
from supervisor.system.log import make_log

HOST = "127.0.0.1"


def spec_alone(
    address: HostPort, inbox: socket.socket, scoreboard: Scoreboard, row: int
) -> WorkerSpec:
    """What the only worker of a gateway is born with; the listener, made here, is its own."""
    return WorkerSpec(
        slot=0,
        gen=1,
        slots=1,
        listen=(address,),
        listeners=(open_listener(address, exclusive=True),),
        exclusive=True,
        inbox=inbox,
        peers={},
        scoreboard=scoreboard,
        row=row,
        cpu=None,
        title="alone",
    )


def main(listen_port: int, endpoint_port: int, orders: Sequence[messages.Down] = ()) -> int:
    """Returns the worker's exit status; ``orders`` follow its first snapshot."""
    listen = HostPort(HOST, listen_port)
    endpoint = Endpoint(str(HostPort(HOST, endpoint_port)), (HOST,), endpoint_port)
    settings = messages.Settings(tcp_user_timeout_s=0.0)
    pipe_r, pipe_w = os.pipe()
    os.set_blocking(pipe_r, False)
    for message in (messages.Snapshot(1, (endpoint,), settings), *orders):
        os.write(pipe_w, wire.encode(message))
    control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    _, inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.setblocking(False)
    inbox.setblocking(False)
    scoreboard = Scoreboard()
    spec = spec_alone(listen, inbox, scoreboard, scoreboard.open_row(0, 1))
    # What comes by the clock would be counted or not, as busy as the machine is.
    heartbeat.INTERVAL_S = keepalive.AGE_S = 3600.0
    print("listening", flush=True)
    try:
        return run(WorkerStart(spec, pipe_r, control, make_log("warn", "json")))
    finally:
        os.close(pipe_w)
        ours.close()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
