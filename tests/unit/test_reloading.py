"""What a reload may change, and what the workers are told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.address import HostPort
from gateway.core.messages import Settings
from supervisor.configuration import log_configuration
from supervisor.core.config import Config
from supervisor.core.reload_rules import flag_name, keep_fixed, worker_settings
from tests.logbook import Logbook


def test_what_sockets_and_processes_hang_on_stays() -> None:
    """The listen address and the number of workers stay as they were, and are named."""
    running = Config(workers=2)
    read = replace(running, workers=4, listen_addr=(HostPort("", 1),), retry_delay_s=5.0)
    config, in_vain = keep_fixed(running, read)
    assert config == replace(running, retry_delay_s=5.0)
    assert in_vain == ("--listen-addr", "--workers")


def test_nothing_is_named_where_nothing_was_changed_in_vain() -> None:
    """A reload of what may change says nothing of restarts."""
    running = Config()
    assert keep_fixed(running, replace(running, balance="least-sessions"))[1] == ()


def test_a_watchdog_that_a_timeout_has_made_too_short_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a reload too: the next time that the only worker hangs, it would be the master's end."""
    monkeypatch.setenv("WATCHDOG_USEC", "90000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    log = Logbook()
    log_configuration(Config(worker_timeout_s=35.0), log)
    assert log.lines == []
    log_configuration(Config(worker_timeout_s=36.0), log)
    (told,) = log.said("the watchdog is too short for --worker-timeout")
    assert (told["watchdog_s"], told["expected_s"]) == (90.0, 92.0)


def test_fields_are_named_as_flags() -> None:
    """The log speaks of flags, which operators know, and not of fields."""
    assert flag_name("removal_grace_s") == "--removal-grace"
    assert flag_name("admin_addr") == "--admin-addr"


def test_workers_are_told_what_they_act_on() -> None:
    """Every setting of a worker comes from the configuration of the same name."""
    config = Config(dial_timeout_s=1.5, max_sessions=7, balance="least-sessions", access_log=True)
    settings = worker_settings(config)
    assert settings.dial_timeout_s == 1.5
    assert settings.max_sessions == 7
    assert settings.balance == "least-sessions"
    assert settings.access_log
    assert worker_settings(Config()) == Settings()


def test_the_hosts_seed_is_of_the_machine_unless_it_is_given() -> None:
    """Workers get a number: of --host-seed where that is set, else of what identifies the host."""
    by_machine = worker_settings(Config(), "machine a").host_seed
    assert by_machine == worker_settings(Config(host_seed="machine a"), "b").host_seed
    assert by_machine not in (0, worker_settings(Config(), "machine b").host_seed)
