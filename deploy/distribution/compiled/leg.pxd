# The types of gateway/sessions/leg.py.

from gateway.calls cimport read, write
from gateway.sessions.pipes cimport Pipe
from gateway.sessions.relay cimport Relay

cdef int ERR, IN, OUT, RDHUP, FAST_EVENTS, SIGNS, CAREFUL

cdef class Leg:
    cdef public int fd, signs
    cdef public bint armed, ended, fast
    cdef public long long bulk, moved
    cdef public Leg peer
    cdef public Pipe pipe
    cdef public Relay relay
    cdef public object session, stall, unsent

    cpdef on_event(self, int mask)
    cpdef on_other_event(self, int mask)
    cpdef copy(self, int signs, bytes data=*)
    cpdef bint splice(self) except -1
    cpdef bint send_pipe(self, Pipe pipe) except -1
    cpdef go_on(self)
    cpdef keep(self, rest)
    cpdef arm(self)
