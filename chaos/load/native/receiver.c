/* Many subscribers in one process that does not measure itself: epoll, no allocation per frame.
 *
 *   receiver PORT CONNECTIONS PREAMBLE UPGRADE_BYTES LAST_SEQ TIMEOUT_S
 *
 * PREAMBLE is a file: an upgrade request of UPGRADE_BYTES bytes, then masked WebSocket messages to send
 * after the 101. Each connection must see frames of seq k, k+1, ... up to LAST_SEQ; anything else is
 * counted as a gap. With UPGRADE_BYTES 0 the stream is not WebSocket: LAST_SEQ is then the number of
 * bytes to read from each connection. Prints one JSON line; exit 1 if something was missing. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 512 * 1024 };

struct connection {
    int fd;
    int done;
    int64_t last_seq; /* -1 before the first frame */
    int64_t bytes;
    size_t held;
    unsigned char *buffer;
};

static int64_t frames, gaps, total_bytes, expected_last;
static int finished;

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

static const unsigned char *read_varint(const unsigned char *p, const unsigned char *end, uint64_t *value)
{
    int shift = 0;
    *value = 0;
    while (p < end && shift < 64) {
        *value |= (uint64_t)(*p & 127) << shift;
        if (*p++ < 128) return p;
        shift += 7;
    }
    return NULL;
}

/* One ServerMessage: entries of field 1, each a KhalaFrame that begins with topic (1) and seq (2). */
static void take_message(struct connection *c, const unsigned char *p, const unsigned char *end)
{
    while (p && p < end && *p == 0x0A) {
        uint64_t length, topic_length, seq;
        const unsigned char *frame = read_varint(p + 1, end, &length);
        if (!frame || length > (uint64_t)(end - frame) || *frame != 0x0A) {
            gaps++;
            return;
        }
        const unsigned char *q = read_varint(frame + 1, end, &topic_length);
        q = q ? q + topic_length : NULL;
        if (!q || q >= frame + length || *q != 0x10 || !read_varint(q + 1, end, &seq)) {
            gaps++;
            return;
        }
        if (c->last_seq >= 0 && (int64_t)seq != c->last_seq + 1) gaps++;
        c->last_seq = (int64_t)seq;
        frames++;
        p = frame + length;
    }
    if (c->last_seq >= expected_last && !c->done) {
        c->done = 1;
        finished++;
    }
}

static void take_stream(struct connection *c)
{
    size_t at = 0;
    while (c->held - at >= 2) {
        unsigned char *p = c->buffer + at;
        uint64_t length = p[1] & 127;
        size_t header = 2;
        if (length == 126) {
            header = 4;
            if (c->held - at < header) break;
            length = (uint64_t)p[2] << 8 | p[3];
        } else if (length == 127) {
            header = 10;
            if (c->held - at < header) break;
            length = 0;
            for (int i = 0; i < 8; i++) length = length << 8 | p[2 + i];
        }
        if (c->held - at < header + length) break;
        if ((p[0] & 15) == 2) take_message(c, p + header, p + header + length);
        at += header + length;
    }
    memmove(c->buffer, c->buffer + at, c->held - at);
    c->held -= at;
}

static int open_connection(struct connection *c, int port, const char *preamble, size_t size, size_t upgrade)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) return -1;
    if (upgrade) {
        char answer[4096];
        size_t got = 0;
        if (write(c->fd, preamble, upgrade) != (ssize_t)upgrade) return -1;
        while (got < 4 || memcmp(answer + got - 4, "\r\n\r\n", 4)) {
            if (got == sizeof answer || read(c->fd, answer + got, 1) != 1) return -1;
            got++;
        }
        if (strncmp(answer, "HTTP/1.1 101", 12)) return -1;
        if (write(c->fd, preamble + upgrade, size - upgrade) != (ssize_t)(size - upgrade)) return -1;
    }
    return fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

int main(int argc, char **argv)
{
    if (argc != 7) return 2;
    int port = atoi(argv[1]), connections = atoi(argv[2]), poller = epoll_create1(0);
    size_t upgrade = (size_t)atol(argv[4]), size = 0;
    expected_last = atoll(argv[5]);
    double deadline = now_s() + atof(argv[6]), first = 0, last = 0;
    static char preamble[1 << 20];
    if (upgrade) {
        FILE *file = fopen(argv[3], "rb");
        if (!file) return 2;
        size = fread(preamble, 1, sizeof preamble, file);
        fclose(file);
    }
    struct connection *all = calloc((size_t)connections, sizeof *all);
    if (!all) return 1;
    for (int i = 0; i < connections; i++) {
        all[i].last_seq = -1;
        all[i].buffer = malloc(BUFFER);
        if (!all[i].buffer || open_connection(&all[i], port, preamble, size, upgrade) < 0) {
            fprintf(stderr, "connection %d: %s\n", i, strerror(errno));
            return 1;
        }
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &interest);
    }
    while (finished < connections && now_s() < deadline) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t got = read(c->fd, c->buffer + c->held, BUFFER - c->held);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) continue;
                epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
                continue;
            }
            int64_t frames_before = frames;
            total_bytes += got;
            c->bytes += got;
            if (upgrade) {
                c->held += (size_t)got;
                take_stream(c);
            } else if (c->bytes >= expected_last && !c->done) {
                c->done = 1;
                finished++;
            }
            if (!upgrade || frames > frames_before) {
                last = now_s();
                if (first == 0) first = last;
            }
        }
    }
    printf("{\"frames\": %lld, \"bytes\": %lld, \"gaps\": %lld, \"finished\": %d, \"seconds\": %.6f, \"cpu_s\": %.6f}\n",
        (long long)frames, (long long)total_bytes, (long long)gaps, finished, last - first, cpu_s());
    return finished == connections && gaps == 0 ? 0 : 1;
}
