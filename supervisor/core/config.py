"""The configuration: every flag of the contract as one typed, validated value."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.address import HostPort


@dataclass(frozen=True, slots=True)
class StaticTarget:
    """One of ``--endpoints``: ``tls`` if it was given with ``https://``."""

    address: HostPort
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Names are the flags' with underscores; durations are seconds and end in ``_s``."""

    endpoints: tuple[StaticTarget, ...] = (StaticTarget(HostPort("127.0.0.1", 2379)),)
    endpoints_given: bool = False
    """Whether ``endpoints`` was set explicitly: only then is it the fallback of discovery_srv."""
    discovery_srv: str = ""
    discovery_srv_name: str = ""
    insecure_discovery: bool = False
    trusted_ca_file: str = ""
    listen_addr: tuple[HostPort, ...] = (HostPort("127.0.0.1", 23790),)
    retry_delay_s: float = 60.0
    workers: int = 0
    """0 is ``auto``: the CPUs this process may use."""
    pin_workers: bool = False
    dial_timeout_s: float = 2.0
    dial_hedge_s: float = 0.25
    drain_timeout_s: float = 30.0
    idle_timeout_s: float = 0.0
    keepalive_time_s: float = 15.0
    keepalive_interval_s: float = 15.0
    keepalive_probes: int = 4
    tcp_user_timeout_s: float = 30.0
    max_sessions: int = 0
    balance: str = "round-robin"
    on_inactive: str = "keep"
    removal_grace_s: float = 30.0
    nameserver: tuple[HostPort, ...] = ()
    discovery_refresh: str = "ttl"
    """``ttl``, ``off``, or ``fixed`` with ``discovery_refresh_s``."""
    discovery_refresh_s: float = 0.0
    health_check: str = "auto"
    health_path: str = "/health"
    health_interval_s: float = 5.0
    health_timeout_s: float = 2.0
    health_rise: int = 1
    health_fall: int = 1
    health_cert_file: str = ""
    health_key_file: str = ""
    worker_timeout_s: float = 30.0
    worker_max_age_s: float = 0.0
    handover: bool = False
    admin_addr: tuple[str, ...] = ()
    """``host:port`` or ``unix:/path``, validated."""
    log_level: str = "info"
    log_format: str = "auto"
    access_log: bool = False
    config_file: str = ""
