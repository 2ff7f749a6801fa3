# The system calls of the relay, without a trip through Python's os module.
#
# Same arguments, results and errors as os.read, os.write and os.splice; an interrupted call is
# made again (PEP 475). Sockets and pipes have no offsets, so those of splice are None. The
# interpreter's lock is kept: the descriptors do not block, and a worker has no other thread.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from posix.unistd cimport read as c_read, write as c_write

cdef extern from "<fcntl.h>" nogil:
    Py_ssize_t c_splice "splice"(int, void*, int, void*, size_t, unsigned int)

cdef extern from *:
    """
    /* One read of the relay, READ_BYTES of gateway/sessions/leg.py. */
    static char etcd_gateway_read_buffer[65536];
    """
    char read_buffer "etcd_gateway_read_buffer"[65536]


cdef inline int failed() except -1:
    """Raises what the system said, unless the call was interrupted and may be made again."""
    if errno != EINTR:
        PyErr_SetFromErrno(OSError)
    return PyErr_CheckSignals()


cdef inline bytes read(int fd, Py_ssize_t size):
    cdef Py_ssize_t count
    if size > <Py_ssize_t> sizeof(read_buffer):
        size = sizeof(read_buffer)
    while True:
        count = c_read(fd, read_buffer, size)
        if count >= 0:
            return PyBytes_FromStringAndSize(read_buffer, count)
        failed()


cdef inline Py_ssize_t write(int fd, object data) except -1:
    cdef const unsigned char[::1] rest
    cdef Py_ssize_t count
    while True:
        if type(data) is bytes:
            count = c_write(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        else:
            rest = data
            count = c_write(fd, <const void*> &rest[0], rest.shape[0])
        if count >= 0:
            return count
        failed()


cdef inline Py_ssize_t splice(
    int source, int target, Py_ssize_t size, object source_offset, object target_offset,
    unsigned int flags
) except -1:
    cdef Py_ssize_t count
    while True:
        count = c_splice(source, NULL, target, NULL, size, flags)
        if count >= 0:
            return count
        failed()
