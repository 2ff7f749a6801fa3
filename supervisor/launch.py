"""The console command's first step; installed as the module ``etcd_gateway``.

``supervisor`` and ``gateway`` are generic names. If another package has one of them in front of
ours, our own code cannot be imported to say so: this module can, because its name is nobody
else's. It imports nothing that is not the standard library's before it has looked, and nothing at
all that is a file of its own before there is somebody to report a failure: on a host without free
descriptors every import may fail.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARTS = {"supervisor": "master.py", "gateway": "log_sink.py"}
"""A module of each of our packages, to know them by."""

PROCESS_MANAGER = "supervisord.py"
"""A module of PyPI's supervisor, which installs itself into the same folder as ours."""


CHANGED_BY_PYTHON = "LC_CTYPE"
"""The variable that Python sets in the C locale."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""


HELD_SIGNALS = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "TTIN", "TTOU")
"""As in ``system.signals``: what the master answers."""

HANDOVER_VARIABLE = "ETCD_GATEWAY_HANDOVER"
"""As in ``handover.state``: the handover state, until this image has taken it over."""

TRIAL_VARIABLE = "ETCD_GATEWAY_PREFLIGHT"
"""As in ``handover.preflight``: this process only tries a start."""

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0
"""Between two starts after an upgrade: the old workers serve meanwhile."""

KILL_MARGIN_S = 2.0
"""As in ``core.workers.slot``: a worker that drains is killed so long after its deadline."""

SHUT_AFTER_S = 0.5
"""As in ``core.workers.fleet``: so long after a stop, listeners without a worker are shut."""


def main() -> int:
    """Check whose packages they are, then run the command line; the exit code."""
    code = _run_with_recovery()
    if sys.flags.inspect:
        _exit_without_prompt(code)
    return code


def _exit_without_prompt(code: int) -> None:
    """End here. With PYTHONINSPECT in the environment the interpreter would print a traceback of
    its own exit and then ask for input: a stop would not end, and no upgrade would pass its trial.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # its reader is gone, or there is none
            continue
    os._exit(code)


def _run_with_recovery() -> int:
    code = _run_to_an_end()
    if code and HANDOVER_VARIABLE in os.environ:
        try:
            _recover(int(os.environ[HANDOVER_VARIABLE]))
        except (OSError, ValueError, ImportError):
            return code
        return 0
    return code


def _run_to_an_end() -> int:
    """Whatever happens: one line at most, and an exit code."""
    try:
        return _run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # noqa: BLE001 - of our own imports, in half an installation
        if reason := _describe_shortage(error):
            print(f"etcd-gateway: {reason}", file=sys.stderr)
            return 1
        if isinstance(error, ImportError):
            said = f"cannot be imported: {error}; install etcd-gateway again"
        else:
            said = f"unexpected {type(error).__name__}: {error}"
        print(f"etcd-gateway: {said}", file=sys.stderr)
        return 1


def _describe_shortage(error: BaseException) -> str:
    """What the host is short of, if that is the reason; else empty."""
    import errno

    if not isinstance(error, OSError):
        return ""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        expected = "expected a higher limit of open files (ulimit -n, LimitNOFILE=)"
    elif error.errno in (errno.ENOMEM, errno.ENOBUFS):
        expected = "expected more memory for this host or control group"
    elif error.errno == errno.ENOSPC and error.filename == "fs.epoll.max_user_watches":
        expected = "expected a higher limit, or fewer descriptors that this user watches"
    elif error.errno == errno.EAFNOSUPPORT and error.filename == "AF_UNIX":
        expected = "expected it to be allowed (RestrictAddressFamilies= of the unit)"
    else:
        return ""
    where = f" ({error.filename})" if error.filename else ""
    return f"cannot start: {error.strerror}{where}, {expected}"


def _run() -> int:
    starts = sys.argv[1:2] == ["start"]
    if starts:
        hold_signals()
    if not starts or TRIAL_VARIABLE in os.environ:
        _be_killed_first()
    if starts and next(iter(os.environ), CHANGED_BY_PYTHON) == CHANGED_BY_PYTHON:
        _execute_with_path()
    # Every TLS context would write the secrets of its handshakes there, or fail where it cannot:
    # those of probes, and one that a library makes for the admin address.
    os.environ.pop("SSLKEYLOGFILE", None)
    import signal

    # Whoever started us may have left it ignored. Then the kernel would throw away how a child
    # ended, and neither a worker's death nor an upgrade's trial could be told.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name, part in PARTS.items():
        if reason := find_foreign_package(name, part):
            advice = "install etcd-gateway into an environment of its own"
            print(f"etcd-gateway: {reason}; {advice}", file=sys.stderr)
            return 1
    if starts:
        import gc
        import logging

        # Imports leave no garbage worth the search, which is a tenth of the start. It begins in
        # ``cli.start``.
        gc.disable()
        # Until there is a log of ours: a library that misses a part of it prints a traceback.
        logging.getLogger().addHandler(logging.NullHandler())
    from supervisor.cli import main as cli

    return cli.main()


def _be_killed_first() -> None:
    """Where memory is short, have the kernel kill this process, which no client needs.

    The health check of a container runs ``status`` within the gateway's limit of memory, and an
    upgrade its trial: the kernel would kill the largest process, which is the master.
    """
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # no /proc, or one that is only to be read
        return
    try:
        os.write(fd, b"1000")  # the most: proc_pid_oom_score_adj(5)
    except OSError:
        pass
    finally:
        os.close(fd)


def hold_signals() -> None:
    """Let signals wait until the master handles them: its imports take a tenth of a second.

    A reload that came early would otherwise kill what it is to reload. The interpreter's own start
    is before this, and nothing of ours can do anything about that.
    """
    import signal

    held = [getattr(signal, f"SIG{name}") for name in HELD_SIGNALS]
    signal.pthread_sigmask(signal.SIG_BLOCK, held)


def _execute_with_path() -> None:
    """Execute this command again with another variable in front, if that is possible.

    ``setproctitle`` finds the place of the process's title by its first variable. There is none to
    be found in an empty environment, nor where Python has put another value in its place (PEP 538).
    Without a title nobody knows a master by its process: ``reload`` would not signal it.
    """
    environ = {"PATH": os.environ.get("PATH", os.defpath)}
    environ.update(os.environ)
    try:
        os.execve(sys.executable, sys.orig_argv, environ)  # noqa: S606 - ourselves
    except (OSError, ValueError):  # it goes without
        return


def find_foreign_package(name: str, part: str) -> str:
    """What is wrong with the package that ``import name`` finds; empty if it is ours."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    homes = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = homes[0] if homes else (spec.origin if spec is not None else None) or "nowhere"
    if not any(os.path.exists(os.path.join(home, part)) for home in homes):
        return f"the package {name} in {found} is not etcd-gateway's"
    if any(os.path.exists(os.path.join(home, PROCESS_MANAGER)) for home in homes):
        return f"the package {name} in {found} is mixed with the process manager's"
    return ""


def _recover(document: int) -> None:
    """After an upgrade this image failed before it had taken over: its workers must not be lost.

    Execute the image that handed over to us if it is still there, once. Else wait and start again,
    for as long as it takes; returns only after a stop signal, which ends them. This is here because
    nothing else can be relied on: the rest of the program may not even be importable.
    """
    while argv := _prepare_recovery(document):
        try:
            os.execve(argv[0], argv, os.environ)  # noqa: S606 - ourselves
        except OSError as error:  # as if the interpreter of the script is missing just now
            text = f"etcd-gateway: cannot execute {argv[0]}: {error.strerror}"
            print(text, file=sys.stderr, flush=True)


def _prepare_recovery(document: int) -> "list[str] | None":
    """What to execute next, for which the document is ready then; None after a stop signal."""
    import json

    state: dict[str, Any] = json.loads(os.pread(document, os.fstat(document).st_size, 0))
    failures = state["failures"] = int(state.get("failures", 0)) + 1
    image, state["image"] = state.get("image"), None
    if argv := _find_image(image):
        state["failure"] = "the new image did not start"
    elif number := _wait_for_another_try(failures, state):
        _stop(state, number)
        return None
    else:
        argv = _find_command(state)
    os.set_inheritable(document, True)
    for name, fd in list(state.get("fds", {}).items()):
        try:
            os.set_inheritable(fd, True)
        except OSError:  # this image closed it; the other can do without, and must not be lost
            del state["fds"][name]
    text = json.dumps(state).encode()
    os.ftruncate(document, 0)
    os.pwrite(document, text, 0)
    return argv


def _find_image(image: "dict[str, Any] | None") -> "list[str] | None":
    """The command line of the image before this one; None if it is not there any more."""
    if image is None or not os.access(image["argv"][0], os.X_OK):
        return None
    unchanged = all(_fingerprint(path) == was for path, was in image["files"].items())
    return image["argv"] if unchanged else None


def _fingerprint(path: str) -> str:
    """As ``handover.image`` makes it: another if the file was written anew, "" if it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def _find_command(state: "dict[str, Any]") -> list[str]:
    """The command line of the upgrade to this image; once an image was gone back to, its own."""
    command: list[str] = state.get("command", [])
    if command and not state.get("failure") and os.access(command[0], os.X_OK):
        return command
    return [sys.executable, *sys.orig_argv[1:]]


def _wait_for_another_try(failures: int, state: "dict[str, Any]") -> int:
    """The number of a stop signal, if one comes, else 0; HUP and USR2 say that it is worth a try.

    Whoever sent HUP waits for the end of a reload (``etcd-gateway reload``): the start is to do it.
    """
    import signal
    import time

    wait_s = min(RETRY_FIRST_S * 2.0 ** min(failures - 1, 16), RETRY_MOST_S)
    text = f"upgrade failed, the old workers go on; trying again in {wait_s:g} s"
    print(f"etcd-gateway: {text}", file=sys.stderr, flush=True)
    waking = {signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
    until = time.monotonic() + wait_s
    while (left_s := until - time.monotonic()) > 0:
        if got := signal.sigtimedwait(waking, min(left_s, _feed_watchdog())):
            if got.si_signo == signal.SIGHUP:
                # As ``handover_document`` spells it; one of another release may not have it.
                state.get("facts", {}).get("reload", {})["asked"] = True
            return 0 if got.si_signo in (signal.SIGHUP, signal.SIGUSR2) else got.si_signo
    return 0


def _stop(state: "dict[str, Any]", number: int) -> None:
    """Do as ``shutdown`` does at a stop signal: the old workers drain, and we wait for their end.

    A second signal ends their sessions at once. With ``--handover`` TERM leaves the workers to the
    next master. Where a release wrote the document that did not say what is needed here, the
    workers drain by themselves when we are gone.
    """
    import contextlib
    import math
    import signal
    import time

    facts, fds = state.get("facts", {}), state.get("fds", {})
    manager = os.environ.get("NOTIFY_SOCKET", "")
    if "drain_timeout_s" not in facts:
        return
    if manager and facts.get("handover") and number == signal.SIGTERM:
        return
    drain_s = float(facts["drain_timeout_s"])
    print(f"etcd-gateway: draining, for {drain_s:g} s at most", file=sys.stderr, flush=True)
    _notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((drain_s + 2 * KILL_MARGIN_S) * 1e6)}")
    _leave_addresses(fds)
    leaving = {f"pipe.{slot}.{gen}" for slot, gen in facts.get("leaving", [])}
    _tell_to_drain({name: fd for name, fd in fds.items() if name not in leaving}, drain_s)
    shut_at = time.monotonic() + SHUT_AFTER_S
    until = time.monotonic() + drain_s + KILL_MARGIN_S
    while (living := _find_living(fds)) and time.monotonic() < until + KILL_MARGIN_S:
        if signal.sigtimedwait({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}, 0.1):
            print("etcd-gateway: stopping at once", file=sys.stderr, flush=True)
            _tell_to_drain(fds, 0.0)
            until = min(until, time.monotonic() + KILL_MARGIN_S)
        if time.monotonic() > shut_at:
            shut_at = math.inf
            _shut_listeners(fds)
        if time.monotonic() > until:
            for pidfd in living:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    text = f"drained, {len(living)} workers left behind" if living else "drained"
    print(f"etcd-gateway: {text}", file=sys.stderr, flush=True)


def _shut_listeners(fds: "dict[str, int]") -> None:
    """Those of workers that died since would go on taking clients that nobody serves."""
    import contextlib
    import socket

    for name, fd in fds.items():
        if name.split(".")[0] in ("listener", "lent", "unix"):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                sock.shutdown(socket.SHUT_RD)


def _tell_to_drain(fds: "dict[str, int]", deadline_s: float) -> None:
    """Tell it to each worker of which there is a pipe, as ``gateway.core.messages`` has it."""
    import json

    drain = {"type": "Drain", "deadline_s": deadline_s, "close_listeners": True}
    for name, fd in fds.items():
        if name.startswith("pipe."):
            try:
                os.write(fd, f"\n{json.dumps(drain)}\n".encode())
            except OSError:  # it has ended, or reads nothing and is killed
                continue


def _find_living(fds: "dict[str, int]") -> list[int]:
    """The pidfds of the workers that have not ended."""
    import select

    poll = select.poll()
    pidfds = {fd for name, fd in fds.items() if name.startswith("pid.")}
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    return list(pidfds - {fd for fd, _ in poll.poll(0)})


def _leave_addresses(fds: "dict[str, int]") -> None:
    """Remove the files of our UNIX sockets; nobody answers at the admin address any more.

    The names of the sockets end in device and inode of the file, if it is ours.
    """
    import socket

    for name, fd in fds.items():
        kind, *numbers = name.split(".")
        try:
            if kind in ("admin", "unix") and len(numbers) == 3:
                with socket.socket(fileno=os.dup(fd)) as sock:
                    path = sock.getsockname()
                found = os.lstat(path)
                if [str(found.st_dev), str(found.st_ino)] == numbers[1:]:
                    os.unlink(path)
            if kind in ("admin", "interim-admin"):
                os.close(fd)
        except (FileNotFoundError, ValueError):  # it is gone, or the name is abstract
            continue
        except OSError as error:
            print(f"etcd-gateway: cannot remove the file of a socket: {error}", file=sys.stderr)


def _feed_watchdog() -> float:
    """Tell the service manager that we live: it kills who is silent. In how many seconds again."""
    interval = os.environ.get("WATCHDOG_USEC", "")
    if not os.environ.get("NOTIFY_SOCKET") or not interval.isdecimal():  # sd_watchdog_enabled(3)
        return RETRY_MOST_S
    _notify("WATCHDOG=1")
    return max(int(interval) / 2e6, 0.01)


def _notify(text: str) -> None:
    """Tell the service manager, if there is one."""
    import contextlib
    import socket

    if not (address := os.environ.get("NOTIFY_SOCKET", "")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), f"\0{address[1:]}" if address[0] == "@" else address)


if __name__ == "__main__":
    sys.exit(main())
