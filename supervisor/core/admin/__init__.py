"""Decides what the status document says and what the counters add up to."""
