"""Decides: no sockets, no files, no clock, no dice, no logging."""
