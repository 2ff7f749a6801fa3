"""The exit codes of the command; operators' scripts rely on them."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_DEGRADED = 3
"""The gateway answers, and is not ready; or its list of sessions is not complete."""
EXIT_UNREACHABLE = 4
"""Nothing answers at the admin address."""
EXIT_NO_ENDPOINT = 69
"""EX_UNAVAILABLE of sysexits(3): there is no endpoint to relay to."""
EXIT_CRASH_LOOP = 70
"""EX_SOFTWARE of sysexits(3): workers keep dying before they are ready."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
