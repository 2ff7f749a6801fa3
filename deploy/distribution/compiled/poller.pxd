# The types of gateway/poller.py.

cimport cython

from gateway.calls cimport close_fd
from gateway.calls cimport monotonic
from gateway.calls cimport poll
from gateway.calls cimport register

cdef class Poller:
    cdef object _loop, _epoll, _again
    cdef readonly dict _watchers, _postponed
    cdef dict _last
    cdef readonly object unwatched
    cdef public list closing
    cdef public int called_last
    cdef public bint awake
    cdef bint _turning, _turn_due
    cdef long _lulls, _close_turns
    cdef double _turned_at

    cpdef add(self, int fd, watcher, unsigned int events=*)
    cpdef want_out(self, int fd)
    cpdef close(self, int fd)
    cpdef again(self, watcher)
    @cython.locals(now=double, until=double)
    cdef _poll_some(self)
    @cython.locals(until=double, busy=bint)
    cdef _poll_until_idle(self)
    cdef _judge_pace(self, double now)
    @cython.locals(count=int, events=list)
    cdef int _handle_batch(self, double wait_s, double until) except -1
    cdef _handle(self, list events)
    cdef _handle_in_chunks(self, list events, double until)
    cdef int _handle_postponed(self, double until) except -1
    @cython.locals(until=double)
    cdef _go_on(self, Py_ssize_t most)
    cpdef _call_last(self)
    cdef _call(self, watcher)
    cdef _close_due(self)
