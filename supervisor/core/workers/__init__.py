"""Decides about workers: when to fork, kill, drain, and who accepts for whom."""
