"""Handover: what passes from one master to the next, and to the service manager."""
