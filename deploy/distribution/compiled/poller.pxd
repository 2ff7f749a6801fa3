# The types of gateway/poller.py.

cdef class Poller:
    cdef object _loop, _epoll, _again
    cdef readonly dict _watchers, _postponed
    cdef dict _last
    cdef public list closing
    cdef public int called_last
    cdef public bint awake
    cdef bint _turning, _turn_due
    cdef long _lulls, _close_turns
    cdef double _turned_at

    cdef int _handle_batch(self, double wait_s, double until) except -1
    cdef _handle(self, list events)
    cdef _handle_in_chunks(self, list events, double until)
    cdef int _handle_postponed(self, double until) except -1
