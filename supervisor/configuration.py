"""The configuration in use: what the log says of it, and how a new one reaches the parts."""

from __future__ import annotations

import os

from gateway.core.log import Log
from supervisor.core.config import Config
from supervisor.handover.systemd import least_watchdog_s, watchdog_interval_s
from supervisor.parts import Parts


def log_configuration(config: Config, log: Log) -> None:
    """Log each value with its source and what lost against it, and what looks wrong with them."""
    for name, meant in config.misspelled:
        log.warn("unknown variable", variable=name, did_you_mean=meant)
    for error in config.wrong_but_overridden:
        log.warn("a value that is overridden could not be used", error=error)
    _warn_of_watchdog(config.worker_timeout_s, log)
    for each in config.effective:
        log.debug("configuration", flag=each.flag, value=each.value, source=each.source.value)
        for source, text in each.overrides:
            log.info(
                "configuration overridden",
                flag=each.flag,
                value=each.value,
                source=each.source.value,
                ignored=text,
                ignored_source=source.value,
            )


def _warn_of_watchdog(worker_timeout_s: float, log: Log) -> None:
    interval_s, least_s = watchdog_interval_s(os.environ), least_watchdog_s(worker_timeout_s)
    if interval_s is not None and 2.0 * interval_s < least_s:
        log.warn(
            "the watchdog is too short for --worker-timeout",
            watchdog_s=2.0 * interval_s,
            expected_s=least_s,
        )


def apply_configuration(parts: Parts, config: Config) -> None:
    """Use ``config`` from now on. Discovery has its targets already: it resolved them first."""
    parts.config = config
    parts.log.set_level(config.log_level)
    parts.tls.contexts.retain(
        (config.trusted_ca_file, config.health_cert_file, config.health_key_file)
    )
    log_configuration(config, parts.log)
    if parts.pool is not None:
        parts.pool.reconfigure(config)
    parts.endpoints.reconfigure(config)
