"""A simulation of one gateway: its pure machines as they are, everything else as a thin model.

The fleet, health, discovery, the roster, totals, tables, quotas, the scoreboard and the encoding of
messages are the product's own. Processes, sockets, pipes, nameservers and endpoints are models, in
virtual time. One seed makes one run: a setup, a plan of disturbances, and every draw in between.
"""
