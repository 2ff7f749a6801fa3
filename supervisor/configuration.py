"""The configuration in use: what the log says of it, and how a new one reaches the parts."""

from __future__ import annotations

from gateway.core.log import Log
from supervisor.core.config import Config
from supervisor.parts import Parts


def log_configuration(config: Config, log: Log) -> None:
    """Log each value with its source and what lost against it, and names that look misspelled."""
    for name, meant in config.misspelled:
        log.warn("unknown variable", variable=name, did_you_mean=meant)
    for error in config.wrong_but_overridden:
        log.warn("a value that is overridden could not be used", error=error)
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


def apply_configuration(parts: Parts, config: Config) -> None:
    """Use ``config`` from now on. Discovery has its targets already: it resolved them first."""
    parts.config = config
    parts.log.set_level(config.log_level)
    parts.tls_contexts.retain(
        (config.trusted_ca_file, config.health_cert_file, config.health_key_file)
    )
    log_configuration(config, parts.log)
    if parts.pool is not None:
        parts.pool.reconfigure(config)
    parts.endpoints.reconfigure(config)
