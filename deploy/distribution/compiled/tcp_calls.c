/* gateway/tcp_calls.py as system calls and nothing else.
 *
 * For what the gateway gives them, arguments, results and errors are the same; an address is a
 * literal one here. What each function is for is said there. None of the calls waits, and a worker
 * has no other thread, so the interpreter's lock is kept. An interrupted call is made again
 * (PEP 475).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "calls.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
} Address;

static const int on = 1, off = 0;

/* The size of what the text says; 0 with errno set if it is no literal address. */
static socklen_t parse(const char *text, unsigned port, Address *address) {
    memset(address, 0, sizeof *address);
    if (strchr(text, ':') == NULL) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons((unsigned short)port);
        if (inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) return sizeof address->v4;
    } else {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons((unsigned short)port);
        if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1) return sizeof address->v6;
    }
    errno = EINVAL;
    return 0;
}

/* As Python's socket tells it; None for what is neither IPv4 nor IPv6. */
static PyObject *tell(const Address *address) {
    char host[INET6_ADDRSTRLEN];
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        return Py_BuildValue("si", host, ntohs(address->v4.sin_port));
    }
    if (address->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
        return Py_BuildValue("siII", host, ntohs(address->v6.sin6_port),
                             ntohl(address->v6.sin6_flowinfo), address->v6.sin6_scope_id);
    }
    Py_RETURN_NONE;
}

static PyObject *read_some(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t size;
    int fd;
    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "read_some takes two arguments");
        return NULL;
    }
    fd = (int)PyLong_AsLong(args[0]);
    if (PyErr_Occurred()) return NULL;
    size = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred()) return NULL;
    return calls_read(fd, size);
}

static PyObject *accept_one(PyObject *listener, PyObject *nothing) {
    Address address;
    socklen_t size;
    PyObject *peer, *client;
    int fd, from = (int)PyLong_AsLong(listener);
    (void)nothing;
    do {
        size = sizeof address;
        fd = accept4(from, &address.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && calls_failed() < 0) return NULL;
    } while (fd < 0);
    peer = tell(&address);
    client = peer != NULL ? Py_BuildValue("iN", fd, peer) : NULL;
    if (client == NULL) close(fd);
    return client;
}

static PyMethodDef accept_method = {"accept_one", accept_one, METH_NOARGS, NULL};

static PyObject *accept_of(PyObject *module, PyObject *sock) {
    int fd = PyObject_AsFileDescriptor(sock);
    PyObject *number, *method;
    (void)module;
    if (fd < 0 || (number = PyLong_FromLong(fd)) == NULL) return NULL;
    method = PyCFunction_New(&accept_method, number);
    Py_DECREF(number);
    return method;
}

static int met_itself(int fd, unsigned port) {
    Address own, other;
    socklen_t own_size = sizeof own, other_size = sizeof other;
    if (getsockname(fd, &own.any, &own_size) < 0) return 0;
    /* The port is at the same place in both families. */
    if (own.v4.sin_port != htons((unsigned short)port)) return 0;
    if (getpeername(fd, &other.any, &other_size) < 0) return 0;
    if (own.v4.sin_port != other.v4.sin_port) return 0;
    if (own.any.sa_family == AF_INET) return own.v4.sin_addr.s_addr == other.v4.sin_addr.s_addr;
    return memcmp(&own.v6.sin6_addr, &other.v6.sin6_addr, sizeof own.v6.sin6_addr) == 0;
}

/* 0, or -1 with errno set. */
static int begin(int fd, const Address *address, socklen_t size, const char *source,
                 int with_data) {
    if (setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) < 0) return -1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) return -1;
    if (with_data && setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off) < 0) return -1;
    if (*source) {
        Address from;
        socklen_t from_size = parse(source, 0, &from);
        if (from_size == 0) return -1;
        if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0) return -1;
        if (bind(fd, &from.any, from_size) < 0) return -1;
    }
    return connect(fd, &address->any, size) < 0 && errno != EINPROGRESS ? -1 : 0;
}

/* How much was taken; -1 with errno set. */
static Py_ssize_t write_first(int fd, const char *data, Py_ssize_t size) {
    ssize_t sent;
    int failure;
    do {
        sent = send(fd, data, size, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    failure = errno;
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    errno = failure;
    return sent;
}

static PyObject *tcp_connect(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    const char *text, *source = "";
    char *data = NULL;
    Py_ssize_t size = 0, sent = -1;
    Address address;
    socklen_t address_size;
    PyObject *result;
    int fd, suspect = 0;
    unsigned port;
    (void)module;
    if (count < 2 || count > 5) {
        PyErr_SetString(PyExc_TypeError, "connect takes two to five arguments");
        return NULL;
    }
    if ((text = PyUnicode_AsUTF8(args[0])) == NULL) return NULL;
    port = (unsigned)PyLong_AsUnsignedLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (count > 2 && args[2] != Py_None && PyBytes_AsStringAndSize(args[2], &data, &size) < 0)
        return NULL;
    if (count > 3 && (suspect = PyObject_IsTrue(args[3])) < 0) return NULL;
    if (count > 4 && (source = PyUnicode_AsUTF8(args[4])) == NULL) return NULL;
    address_size = parse(text, port, &address);
    if (address_size == 0) return PyErr_SetFromErrno(PyExc_OSError);
    fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) return PyErr_SetFromErrno(PyExc_OSError);
    if (begin(fd, &address, address_size, source, data != NULL) < 0) goto failed;
    if (data != NULL) {
        if (suspect && met_itself(fd, port)) {
            errno = ECONNREFUSED;
            goto failed;
        }
        sent = write_first(fd, data, size);
        if (sent < 0 && errno != EAGAIN) goto failed;
    }
    result = sent < 0 ? Py_BuildValue("iO", fd, Py_None) : Py_BuildValue("in", fd, sent);
    if (result == NULL) close(fd);
    return result;
failed:
    PyErr_SetFromErrno(PyExc_OSError);
    close(fd);
    return NULL;
}

/* 0, or -1 with an exception; a peer that is gone already is no error. */
static int shut(int fd) {
    if (shutdown(fd, SHUT_WR) == 0 || errno == ENOTCONN) return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static PyObject *shut_write(PyObject *module, PyObject *number) {
    int fd = (int)PyLong_AsLong(number);
    (void)module;
    if (PyErr_Occurred() || shut(fd) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *write_last(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    char *data;
    Py_ssize_t size;
    ssize_t sent;
    int fd;
    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "write_last takes two arguments");
        return NULL;
    }
    fd = (int)PyLong_AsLong(args[0]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &data, &size) < 0) return NULL;
    do {
        sent = send(fd, data, size, MSG_MORE | MSG_NOSIGNAL);
        if (sent < 0 && calls_failed() < 0) return NULL;
    } while (sent < 0);
    if (sent == size && shut(fd) < 0) return NULL;
    return PyLong_FromSsize_t(sent);
}

static PyMethodDef methods[] = {
    {"accept_of", accept_of, METH_O, NULL},
    {"connect", (PyCFunction)(void (*)(void))tcp_connect, METH_FASTCALL, NULL},
    {"read_some", (PyCFunction)(void (*)(void))read_some, METH_FASTCALL, NULL},
    {"shut_write", shut_write, METH_O, NULL},
    {"write_last", (PyCFunction)(void (*)(void))write_last, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "gateway.tcp_calls", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_tcp_calls(void) { return PyModule_Create(&definition); }
