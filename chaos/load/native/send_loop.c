/* The reference for fan-out: one send(2) per subscriber and message, nothing else.
 *
 *   send_loop CONNECTIONS SNDBUF
 *
 * Listens on a free loopback port, prints it, accepts CONNECTIONS clients and prints how many there are.
 * Then, for each line `run FILE` on standard input, sends each message of the file to each client in turn
 * and answers one JSON line. FILE: for each message u32 length (little-endian) and bytes. Only bytes that
 * the kernel took are counted; where it takes none, poll(2) waits, as any server must. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
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

static unsigned char *read_file(const char *name, size_t *size)
{
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END)) return NULL;
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*size + 1);
    if (bytes && fread(bytes, 1, *size, file) != *size) bytes = NULL;
    fclose(file);
    return bytes;
}

/* Returns 0, or -1 if a client is gone. */
static int send_to_all(const int *sockets, int connections, const unsigned char *message, size_t size, int64_t *taken)
{
    for (int i = 0; i < connections; i++) {
        size_t sent = 0;
        while (sent < size) {
            ssize_t count = send(sockets[i], message + sent, size - sent, MSG_NOSIGNAL);
            if (count > 0) {
                sent += (size_t)count;
                *taken += count;
            } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                struct pollfd waiting = {.fd = sockets[i], .events = POLLOUT};
                poll(&waiting, 1, -1);
            } else {
                perror("send");
                return -1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    int connections = atoi(argv[1]), send_buffer = atoi(argv[2]), one = 1;
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
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
    if (!sockets) return 1;
    for (int i = 0; i < connections; i++) {
        sockets[i] = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
        if (sockets[i] < 0) {
            perror("accept");
            return 1;
        }
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(sockets[i], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    }
    printf("%d\n", connections);
    fflush(stdout);
    char line[4200], name[4096];
    while (fgets(line, sizeof line, stdin) && sscanf(line, "run %4095[^\n]", name) == 1) {
        size_t size = 0;
        int64_t taken = 0;
        unsigned char *bytes = read_file(name, &size);
        if (!bytes) {
            perror(name);
            return 1;
        }
        double started = now_s(), cpu_started = cpu_s();
        for (size_t at = 0; at + 4 <= size;) {
            uint32_t message_bytes;
            memcpy(&message_bytes, bytes + at, 4);
            if (send_to_all(sockets, connections, bytes + at + 4, message_bytes, &taken)) return 1;
            at += 4 + message_bytes;
        }
        printf("{\"seconds\": %.9f, \"cpu_s\": %.6f, \"bytes\": %lld}\n", now_s() - started, cpu_s() - cpu_started,
            (long long)taken);
        fflush(stdout);
        free(bytes);
    }
    return 0;
}
