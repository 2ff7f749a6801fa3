"""Chaos: real gateways, a real etcd and real links, disturbed at random while a checker looks on.

``python -m tests.chaos --seconds=600 --seed=N`` (``make chaos``) prints the seed, a timeline and a
histogram of recovery times, and ends with 1 if something happened that must not.
"""
