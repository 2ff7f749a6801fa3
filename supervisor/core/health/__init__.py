"""Decides about health: what a probe is, and what evidence makes of an endpoint."""
