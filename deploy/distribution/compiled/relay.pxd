# The types of gateway/sessions/relay.py.

from gateway.poller cimport Poller
from gateway.sessions.pipes cimport Pipes

cdef class Relay:
    cdef public Poller poller
    cdef public Pipes pipes
    cdef public set dirty
