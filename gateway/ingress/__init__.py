"""Ingress: where a client is accepted, handed over, or held back."""
