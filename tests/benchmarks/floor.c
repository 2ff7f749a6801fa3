/* The floor: what relaying TCP costs when nothing else is done.
 *
 *   floor PORT HOST:PORT... (IPv4 literals)
 *
 * One process, one edge-triggered epoll, each descriptor registered once. Small reads are copied
 * through one buffer; a read that fills it makes the direction splice through a pipe from then on.
 * Half-closes are passed on. No limits, no timers, no counting, no retry of a failed connect: a
 * program that does its users a service costs more than this.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (64 * 1024)
#define PIPE_BYTES (1 << 20)
#define BATCH 256
#define BUDGET 4 /* full reads or pipefuls per event */

/* One side of a session: fd is read here and written by the peer. */
struct leg {
    int fd;
    struct leg *peer;
    char *rest; /* bytes read here that the peer did not take */
    size_t rest_at, rest_size;
    int pipe[2];    /* -1 until the direction is bulk */
    size_t in_pipe; /* bytes in the pipe */
    int ended;      /* the end of stream was read and passed on */
    int again;      /* its budget was used up: it is in the queue below */
    struct leg *next;
};

static int epoll_fd;
static char buffer[BUFFER];
static struct leg *again_first, **again_last = &again_first;
static struct leg *dead_first; /* freed at the end of the batch: events may still name them */

static void end_session(struct leg *leg) {
    struct leg *legs[2] = {leg, leg->peer};
    for (int i = 0; i < 2; i++) {
        if (legs[i]->fd < 0) continue;
        close(legs[i]->fd);
        legs[i]->fd = -1;
        if (legs[i]->pipe[0] >= 0) close(legs[i]->pipe[0]), close(legs[i]->pipe[1]);
        free(legs[i]->rest);
        if (!legs[i]->again) legs[i]->next = dead_first, dead_first = legs[i];
    }
}

static void ask_again(struct leg *leg) {
    if (leg->again) return;
    leg->again = 1;
    leg->next = NULL;
    *again_last = leg;
    again_last = &leg->next;
}

/* Pass on what is kept; 1: nothing is left, 0: the peer takes no more, -1: the session is over. */
static int flush(struct leg *leg) {
    while (leg->rest_size) {
        ssize_t sent = write(leg->peer->fd, leg->rest + leg->rest_at, leg->rest_size);
        if (sent < 0) return errno == EAGAIN ? 0 : (end_session(leg), -1);
        leg->rest_at += sent;
        leg->rest_size -= sent;
    }
    while (leg->in_pipe) {
        ssize_t sent = splice(leg->pipe[0], NULL, leg->peer->fd, NULL, leg->in_pipe,
                              SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (sent <= 0) return sent < 0 && errno == EAGAIN ? 0 : (end_session(leg), -1);
        leg->in_pipe -= sent;
    }
    return 1;
}

static void pass_end(struct leg *leg) {
    leg->ended = 1;
    if (leg->peer->ended) end_session(leg);
    else shutdown(leg->peer->fd, SHUT_WR);
}

static void pump(struct leg *leg) {
    if (leg->ended || flush(leg) != 1) return;
    for (int turn = 0; turn < BUDGET; turn++) {
        if (leg->pipe[0] >= 0) {
            ssize_t size = splice(leg->fd, NULL, leg->pipe[1], NULL, PIPE_BYTES,
                                  SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
            if (size > 0) {
                leg->in_pipe = size;
                if (flush(leg) != 1) return;
                continue;
            }
            if (size < 0 && errno != EAGAIN) {
                end_session(leg);
                return;
            } /* 0 and EAGAIN may be the end, an urgent byte or nothing: the read tells */
        }
        ssize_t size = read(leg->fd, buffer, BUFFER);
        if (size < 0) {
            if (errno != EAGAIN) end_session(leg);
            return;
        }
        if (size == 0) {
            pass_end(leg);
            return;
        }
        ssize_t sent = write(leg->peer->fd, buffer, size);
        if (sent < 0 && errno != EAGAIN) {
            end_session(leg);
            return;
        }
        if (sent < 0) sent = 0;
        if (sent < size) {
            if (!leg->rest) leg->rest = malloc(BUFFER);
            memcpy(leg->rest, buffer + sent, size - sent);
            leg->rest_at = 0;
            leg->rest_size = size - sent;
            return;
        }
        if (size < BUFFER) return; /* edge-triggered: the next byte is an event */
        if (leg->pipe[0] < 0 && pipe2(leg->pipe, O_NONBLOCK | O_CLOEXEC) == 0)
            fcntl(leg->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    }
    ask_again(leg);
}

static struct leg *watch(int fd) {
    struct leg *leg = calloc(1, sizeof *leg);
    leg->fd = fd;
    leg->pipe[0] = leg->pipe[1] = -1;
    return leg;
}

static void add(struct leg *leg) {
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = leg}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, leg->fd, &event);
}

static void accept_all(int listener, struct sockaddr_in *endpoints, int count) {
    static int turn;
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int up = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        setsockopt(up, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct sockaddr_in *to = &endpoints[turn++ % count];
        if (up < 0 || (connect(up, (void *)to, sizeof *to) < 0 && errno != EINPROGRESS)) {
            close(up);
            close(fd);
            continue;
        }
        struct leg *client = watch(fd), *server = watch(up);
        client->peer = server;
        server->peer = client;
        add(client);
        add(server);
    }
}

int main(int argc, char **argv) {
    int count = argc - 2, on = 1;
    signal(SIGPIPE, SIG_IGN); /* a write after a reset is an error like others */
    if (count < 1) return fprintf(stderr, "usage: floor PORT HOST:PORT...\n"), 2;
    struct sockaddr_in *endpoints = calloc(count, sizeof *endpoints);
    for (int i = 0; i < count; i++) {
        char *colon = strrchr(argv[i + 2], ':');
        if (!colon) return fprintf(stderr, "expected HOST:PORT: %s\n", argv[i + 2]), 2;
        *colon = 0;
        endpoints[i].sin_family = AF_INET;
        endpoints[i].sin_port = htons(atoi(colon + 1));
        inet_pton(AF_INET, argv[i + 2], &endpoints[i].sin_addr);
    }
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted ones inherit it */
    if (bind(listener, (void *)&own, sizeof own) || listen(listener, 4096)) return perror("floor"), 1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}}, events[BATCH];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, BATCH, again_first ? 0 : -1);
        for (int i = 0; i < n; i++) {
            struct leg *leg = events[i].data.ptr;
            if (!leg) {
                accept_all(listener, endpoints, count);
                continue;
            }
            if (leg->fd >= 0 && events[i].events & EPOLLERR) end_session(leg);
            if (leg->fd >= 0 && events[i].events & EPOLLOUT && (leg->peer->rest_size || leg->peer->in_pipe))
                pump(leg->peer);
            if (leg->fd >= 0 && events[i].events & ~EPOLLOUT) pump(leg);
        }
        struct leg *again = again_first;
        again_first = NULL;
        again_last = &again_first;
        while (again) {
            struct leg *leg = again;
            again = leg->next;
            leg->again = 0;
            if (leg->fd >= 0) pump(leg);
            else leg->next = dead_first, dead_first = leg;
        }
        while (dead_first) {
            struct leg *leg = dead_first;
            dead_first = leg->next;
            free(leg);
        }
    }
}
