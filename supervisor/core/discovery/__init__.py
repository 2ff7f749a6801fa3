"""Decides about discovery: which questions, which answers hold, which endpoints follow."""
