/* The system calls of the relay, without a trip through Python's os, select and time.
 *
 * Same arguments, results and errors as os.read, os.write, os.splice, os.close and poll and
 * register of select.epoll. An interrupted call is made again (PEP 475), but for close, which is
 * over then. Sockets and pipes have no offsets, so those of splice are None. The descriptors do
 * not block, and a worker has no other thread, so the interpreter's lock is kept; only a poll that
 * waits releases it.
 */
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* One read of the relay, READ_BYTES of gateway/sessions/leg.py. */
static char calls_read_buffer[65536];

/* One batch of the poller, BATCH of gateway/poller.py. */
static struct epoll_event calls_events[256];

/* Raise what the system said: -1; 0 if the call was interrupted and may be made again.
 *
 * That there is nothing to do just now is said all the time, and by the same object each time: to
 * make one takes longer than the call.
 */
static inline int calls_failed(void) {
    static PyObject *nothing_now;
    if (errno == EINTR) return PyErr_CheckSignals();
    if (errno != EAGAIN) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (nothing_now == NULL) {
        PyObject *type, *traceback;
        PyErr_SetFromErrno(PyExc_OSError);
        PyErr_Fetch(&type, &nothing_now, &traceback);
        PyErr_NormalizeException(&type, &nothing_now, &traceback);
        Py_XDECREF(traceback);
        Py_XDECREF(type);
        if (nothing_now == NULL) return -1;
    }
    PyException_SetContext(nothing_now, NULL); /* what was handled the last time */
    PyException_SetTraceback(nothing_now, Py_None); /* each raise adds to it */
    PyErr_SetObject((PyObject *)Py_TYPE(nothing_now), nothing_now);
    return -1;
}

/* The relay reads and writes sockets alone: recv and send spare the kernel the layer of files. */
static inline PyObject *calls_read(int fd, Py_ssize_t size) {
    if (size > (Py_ssize_t)sizeof calls_read_buffer) size = sizeof calls_read_buffer;
    for (;;) {
        ssize_t count = recv(fd, calls_read_buffer, size, 0);
        if (count >= 0) return PyBytes_FromStringAndSize(calls_read_buffer, count);
        if (calls_failed() < 0) return NULL;
    }
}

static inline Py_ssize_t calls_write_bytes(int fd, const void *data, Py_ssize_t size) {
    for (;;) {
        ssize_t count = send(fd, data, size, MSG_NOSIGNAL);
        if (count >= 0) return count;
        if (calls_failed() < 0) return -1;
    }
}

/* data: bytes, or anything else that has a contiguous buffer. */
static inline Py_ssize_t calls_write(int fd, PyObject *data) {
    Py_buffer view;
    Py_ssize_t count;
    if (PyBytes_CheckExact(data))
        return calls_write_bytes(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return -1;
    count = calls_write_bytes(fd, view.buf, view.len);
    PyBuffer_Release(&view);
    return count;
}

static inline Py_ssize_t calls_splice(int source, int target, Py_ssize_t size,
                                      PyObject *source_offset, PyObject *target_offset,
                                      unsigned int flags) {
    (void)source_offset, (void)target_offset;
    for (;;) {
        ssize_t count = splice(source, NULL, target, NULL, size, flags);
        if (count >= 0) return count;
        if (calls_failed() < 0) return -1;
    }
}

/* Descriptors and events, as a list of pairs; wait_s: seconds, rounded up to milliseconds. */
static inline PyObject *calls_poll(PyObject *epoll, double wait_s, int most) {
    PyObject *events;
    int count, fd = PyObject_AsFileDescriptor(epoll);
    if (fd < 0) return NULL;
    if (most > (int)(sizeof calls_events / sizeof *calls_events))
        most = sizeof calls_events / sizeof *calls_events;
    for (;;) {
        if (wait_s > 0) {
            Py_BEGIN_ALLOW_THREADS
            count = epoll_wait(fd, calls_events, most, (int)(wait_s * 1000 + 0.999));
            Py_END_ALLOW_THREADS
        } else {
            count = epoll_wait(fd, calls_events, most, 0);
        }
        if (count >= 0) break;
        if (calls_failed() < 0) return NULL;
    }
    events = PyList_New(count);
    for (int i = 0; events != NULL && i < count; i++) {
        PyObject *pair = PyTuple_New(2);
        PyObject *who = PyLong_FromLong(calls_events[i].data.fd);
        PyObject *what = PyLong_FromUnsignedLong(calls_events[i].events);
        if (pair == NULL || who == NULL || what == NULL) {
            Py_XDECREF(pair), Py_XDECREF(who), Py_XDECREF(what);
            Py_CLEAR(events);
            break;
        }
        PyTuple_SET_ITEM(pair, 0, who);
        PyTuple_SET_ITEM(pair, 1, what);
        PyList_SET_ITEM(events, i, pair);
    }
    return events;
}

static inline int calls_register(PyObject *epoll, int fd, unsigned int events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    int epoll_fd = PyObject_AsFileDescriptor(epoll);
    if (epoll_fd < 0) return -1;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static inline int calls_close(int fd) {
    if (close(fd) == 0 || errno == EINTR) return 0; /* closed in both cases (close(2)) */
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static inline double calls_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    return now.tv_sec + now.tv_nsec * 1e-9;
}
