/* Clients that mean no good: hostile PORT KIND COUNT PER_SECOND.
 *
 * silent    connect, and say nothing
 * vanish    connect, say half a request, and be gone without a word (TCP_REPAIR, tcp(7))
 * reset     connect, and reset at once, for ever
 * unread    ask for bulk with a tiny receive buffer, and never read
 * bytes     on COUNT sessions in turn, one byte of a request that does not end
 *
 * COUNT is how many connections there are at most, PER_SECOND how fast they are made (and, for
 * bytes, how many bytes are written). Prints "ready" when all are there, then once a second how many
 * connections it has made in all, until it is killed. Each connection comes from an address of its own, as far as there are addresses: local
 * ports would not be enough.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static const char BULK[] = "GET /bulk HTTP/1.1\r\nHost: bench\r\n\r\n";
static const char HALF[] = "GET / HTTP/1.1\r\nHo";
static long made;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void wait_until(double due) {
  double left = due - now();
  if (left > 0) {
    struct timespec t = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
    nanosleep(&t, NULL);
  }
}

static int dial(int port, int buffer) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
  if (fd < 0) return -1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  if (buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  from.sin_addr.s_addr = htonl(0x7f640001 + made++ % 250);
  bind(fd, (struct sockaddr *)&from, sizeof from);
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
    close(fd);
    return -1;
  }
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int port = atoi(argv[1]), count = atoi(argv[3]), on = 1;
  const char *kind = argv[2];
  double per_s = atof(argv[4]), due = now();
  struct linger hard = {1, 0};
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  int *fds = calloc(count, sizeof *fds), n = 0, told = 0;
  double tell = 0;
  for (long turn = 0;; turn++) {
    due += 1 / per_s;
    if (now() - due > 0.2) due = now();
    wait_until(due);
    if (!strcmp(kind, "reset") || !strcmp(kind, "vanish")) {
      int fd = dial(port, 0);
      if (fd >= 0 && *kind == 'v') {
        if (write(fd, HALF, sizeof HALF - 1) < 0) perror("write");
        if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on)) perror("TCP_REPAIR");
      } else if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
      }
      if (fd >= 0) close(fd);
      n = n < count ? n + 1 : n;
    } else if (n < count) {
      int fd = dial(port, *kind == 'u' ? 2048 : 0);
      if (fd < 0) continue;
      if (*kind == 'u' && write(fd, BULK, sizeof BULK - 1) < 0) perror("write");
      if (*kind == 'b') {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (write(fd, HALF, sizeof HALF - 1) < 0) perror("write");
      }
      fcntl(fd, F_SETFL, O_NONBLOCK);
      fds[n++] = fd;
    } else if (*kind == 'b') {
      if (write(fds[turn % n], "x", 1) < 0 && errno == EPIPE) return 1;
    } else {
      due = now() + 1;
    }
    if (!told && n == count) {
      told = 1;
      puts("ready");
      fflush(stdout);
    }
    if (told && now() > tell) {
      tell = now() + 1;
      printf("%.3f %ld\n", now(), made);
      fflush(stdout);
    }
  }
}
