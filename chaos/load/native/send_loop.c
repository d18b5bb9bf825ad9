/* The reference for fan-out: one send(2) per subscriber and write, nothing else.
 *
 *   send_loop CONNECTIONS WRITES BYTES_PER_WRITE SNDBUF
 *
 * Listens on a free loopback port, prints it, accepts CONNECTIONS clients, writes WRITES messages of
 * BYTES_PER_WRITE bytes to each in turn, and prints one JSON line. Only bytes that the kernel took are
 * counted; where it takes none, poll(2) waits, as any server must. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
        + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    int connections = atoi(argv[1]), send_buffer = atoi(argv[4]), one = 1;
    long writes = atol(argv[2]);
    size_t size = (size_t)atol(argv[3]);
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 4096)
        || getsockname(listening, (struct sockaddr *)&address, &length)) {
        perror("listen");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int *sockets = calloc((size_t)connections, sizeof *sockets);
    char *message = calloc(1, size);
    if (!sockets || !message) return 1;
    for (int i = 0; i < connections; i++) {
        sockets[i] = accept(listening, NULL, NULL);
        if (sockets[i] < 0) {
            perror("accept");
            return 1;
        }
        fcntl(sockets[i], F_SETFL, O_NONBLOCK);
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(sockets[i], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    }
    double started = now_s(), cpu_started = cpu_s();
    for (long w = 0; w < writes; w++) {
        for (int i = 0; i < connections; i++) {
            size_t sent = 0;
            while (sent < size) {
                ssize_t taken = send(sockets[i], message + sent, size - sent, MSG_NOSIGNAL);
                if (taken > 0) {
                    sent += (size_t)taken;
                } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                    struct pollfd waiting = {.fd = sockets[i], .events = POLLOUT};
                    poll(&waiting, 1, -1);
                } else {
                    perror("send");
                    return 1;
                }
            }
        }
    }
    printf("{\"seconds\": %.6f, \"cpu_s\": %.6f}\n", now_s() - started, cpu_s() - cpu_started);
    return 0;
}
