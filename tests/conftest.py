"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Machines are shared and slow at times: an example's duration says nothing about the code.
settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")
