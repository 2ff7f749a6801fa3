# The types of gateway/sessions/pipes.py.

from gateway.calls cimport splice

cdef class Pipe:
    cdef public int r, w
    cdef public Py_ssize_t fill

    cpdef Py_ssize_t take_from(self, int fd) except -1
    cpdef pass_to(self, int fd)

cdef class Pipes:
    cdef object _budget, _usable
    cdef list _spare

    cpdef Pipe take(self)
    cpdef give_back(self, Pipe pipe)
