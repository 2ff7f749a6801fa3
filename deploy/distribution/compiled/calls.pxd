# What the modules that are compiled call instead of os, select and time; see calls.h.

cdef extern from "calls.h":
    bytes read "calls_read"(int fd, Py_ssize_t size)
    Py_ssize_t write "calls_write"(int fd, object data) except -1
    Py_ssize_t splice "calls_splice"(
        int source, int target, Py_ssize_t size, object source_offset, object target_offset,
        unsigned int flags
    ) except -1
    int register "calls_register"(object epoll, int fd, unsigned int events) except -1
    int close_fd "calls_close"(int fd) except -1
    list poll "calls_poll"(object epoll, double wait_s, int most)
    double monotonic "calls_monotonic"()
