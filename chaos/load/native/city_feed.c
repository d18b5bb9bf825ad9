/* The agents of a city: appends at given times over keep-alive connections, one request in flight on each; and an
 * ear at the broker that notes when the runtime saw each commit return. One epoll loop.
 *
 *   city_feed PORT HEAD RUNS BODIES PLAN LOG START CONNECTIONS NATS_PORT NATS_SUBJECT
 *
 * HEAD: the common header lines of all requests, each ended by CRLF. RUNS: an id a line. BODIES: each u32 (little
 * endian) size and bytes. PLAN: a line for each request, ascending: DUE RUN BODY, seconds after START (Unix seconds).
 * Requests of one run keep their order. NATS_LOGIN in the environment is the broker's user and password, as JSON members.
 *
 * LOG gets lines
 *   a RUN DUE_NS SENT_NS ACKED_NS STATUS                   an append that was answered
 *   c TOPIC FIRST_SEQ LAST_SEQ COMMITTED_US HEARD_NS       a record at the broker
 * all times CLOCK_REALTIME. Ends when every request is answered and the broker has been silent for a second.
 * Prints one JSON line; exit 1 if an answer was not 200. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 20, TAP_MAX = 8 << 20 };

struct request {
    double due;
    int run, body;
};

struct sender {
    int fd, request; /* -1: idle */
    int64_t sent_ns;
    unsigned char *held;
    size_t held_bytes;
};

static struct request *plan;
static char **runs, *head;
static unsigned char **bodies;
static uint32_t *body_sizes;
static int64_t answered, refused, records, last_record_ns;
static double start;
static int port, body_count;
static FILE *out;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int dial(int to)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        fprintf(stderr, "cannot connect to %d: %s\n", to, strerror(errno));
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return fd;
}

static void send_whole(int fd, const void *data, size_t size)
{
    for (const char *p = data; size;) {
        ssize_t sent = send(fd, p, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            fprintf(stderr, "cannot send: %s\n", strerror(errno));
            exit(1);
        }
        p += sent;
        size -= (size_t)sent;
    }
}

static void send_request(struct sender *s, int number)
{
    static unsigned char wire[6 << 20];
    struct request *r = &plan[number];
    int size = snprintf((char *)wire, 8192,
        "POST /v1/runs/%s/events HTTP/1.1\r\n%sIdempotency-Key: city-%d\r\nContent-Length: %u\r\n\r\n", runs[r->run],
        head, number, body_sizes[r->body]);
    memcpy(wire + size, bodies[r->body], body_sizes[r->body]);
    s->request = number;
    s->sent_ns = now_ns();
    send_whole(s->fd, wire, (size_t)size + body_sizes[r->body]);
}

static void take_answer(struct sender *s)
{
    ssize_t got = recv(s->fd, s->held + s->held_bytes, ANSWER_MAX - s->held_bytes, 0);
    int64_t at = now_ns();
    if (got <= 0) {
        fprintf(stderr, "the runtime ended a connection\n");
        exit(1);
    }
    s->held_bytes += (size_t)got;
    unsigned char *end = memmem(s->held, s->held_bytes, "\r\n\r\n", 4);
    if (!end) return;
    *end = 0;
    char *length = strcasestr((char *)s->held, "content-length:");
    size_t size = (size_t)(end - s->held) + 4 + (length ? strtoul(length + 15, NULL, 10) : 0);
    int status = atoi((char *)s->held + 9);
    *end = '\r';
    if (s->held_bytes < size) return;
    struct request *r = &plan[s->request];
    fprintf(out, "a %d %lld %lld %lld %d\n", r->run, (long long)((start + r->due) * 1e9), (long long)s->sent_ns,
        (long long)at, status);
    if (status != 200 && ++refused <= 5) fprintf(stderr, "an append was answered %.*s\n", 300, s->held);
    answered++;
    s->request = -1;
    s->held_bytes = 0;
}

static const unsigned char *read_varint(const unsigned char *p, const unsigned char *end, uint64_t *value)
{
    int shift = 0;
    *value = 0;
    while (p && p < end && shift < 64) {
        *value |= (uint64_t)(*p & 127) << shift;
        if (*p++ < 128) return p;
        shift += 7;
    }
    return NULL;
}

/* A FanoutRecord: topic (1), first_seq (3), last_seq (4), committed_at_us (10). */
static void take_record(const unsigned char *p, const unsigned char *end, int64_t at)
{
    uint64_t tag, value, first = 0, last = 0, committed = 0, topic_size = 0;
    const unsigned char *topic = NULL;
    while (p && p < end && (p = read_varint(p, end, &tag)) && (p = read_varint(p, end, &value))) {
        switch (tag >> 3) {
        case 1: topic = p, topic_size = value; break;
        case 3: first = value; break;
        case 4: last = value; break;
        case 10: committed = value; break;
        }
        if ((tag & 7) == 2) p += value;
    }
    fprintf(out, "c %.*s %lld %lld %lld %lld\n", (int)topic_size, topic, (long long)first, (long long)last,
        (long long)committed, (long long)at);
    records++;
    last_record_ns = at;
}

static void take_tap(int fd, unsigned char *held, size_t *held_bytes)
{
    ssize_t got = recv(fd, held + *held_bytes, TAP_MAX - *held_bytes, MSG_DONTWAIT);
    int64_t at = now_ns();
    size_t from = 0;
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN) return;
        fprintf(stderr, "the broker ended the connection\n");
        exit(1);
    }
    *held_bytes += (size_t)got;
    for (;;) {
        unsigned char *line = held + from, *end = memmem(line, *held_bytes - from, "\r\n", 2);
        if (!end) break;
        size_t next = (size_t)(end - held) + 2;
        if (!memcmp(line, "MSG ", 4)) {
            unsigned char *digits = end;
            while (digits[-1] != ' ') digits--;
            size_t size = strtoul((char *)digits, NULL, 10);
            if (*held_bytes < next + size + 2) break;
            take_record(held + next, held + next + size, at);
            next += size + 2;
        } else if (!memcmp(line, "PING", 4)) {
            send_whole(fd, "PONG\r\n", 6);
        } else if (!memcmp(line, "-ERR", 4)) {
            fprintf(stderr, "the broker says %.*s\n", (int)(end - line), line);
            exit(1);
        }
        from = next;
    }
    memmove(held, held + from, *held_bytes - from);
    *held_bytes -= from;
}

static char **read_lines(const char *path, int *count)
{
    char *line = NULL, **lines = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "r");
    *count = 0;
    if (!file) exit(2);
    for (ssize_t size; (size = getline(&line, &room, file)) > 0;) {
        line[strcspn(line, "\n")] = 0;
        lines = realloc(lines, (size_t)(*count + 1) * sizeof *lines);
        lines[(*count)++] = strdup(line);
    }
    free(line);
    fclose(file);
    return lines;
}

static void read_bodies(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) exit(2);
    for (uint32_t size; fread(&size, 4, 1, file) == 1; body_count++) {
        bodies = realloc(bodies, (size_t)(body_count + 1) * sizeof *bodies);
        body_sizes = realloc(body_sizes, (size_t)(body_count + 1) * sizeof *body_sizes);
        body_sizes[body_count] = size;
        bodies[body_count] = malloc(size);
        if (fread(bodies[body_count], 1, size, file) != size) exit(2);
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    if (argc != 11) return 2;
    int run_count, request_count, next = 0, poller = epoll_create1(0);
    port = atoi(argv[1]);
    FILE *file = fopen(argv[2], "r");
    head = calloc(1, 16384);
    if (!file || fread(head, 1, 16383, file) == 0) return 2;
    fclose(file);
    runs = read_lines(argv[3], &run_count);
    read_bodies(argv[4]);
    char **lines = read_lines(argv[5], &request_count);
    out = fopen(argv[6], "w");
    start = atof(argv[7]);
    int senders = atoi(argv[8]), nats_port = atoi(argv[9]), tap = -1;
    plan = calloc((size_t)request_count, sizeof *plan);
    struct sender *all = calloc((size_t)senders, sizeof *all);
    unsigned char *tapped = malloc(TAP_MAX);
    size_t tapped_bytes = 0;
    if (!out || !plan || !all || !tapped) return 2;
    for (int i = 0; i < request_count; i++) {
        struct request *r = &plan[i];
        if (sscanf(lines[i], "%lf %d %d", &r->due, &r->run, &r->body) != 3 || r->body >= body_count || r->run >= run_count)
            return 2;
    }
    if (nats_port) {
        char hello[1024];
        tap = dial(nats_port);
        int size = snprintf(hello, sizeof hello,
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"city\",%s}\r\nSUB %s 1\r\nPING\r\n", getenv("NATS_LOGIN"), argv[10]);
        send_whole(tap, hello, (size_t)size);
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(poller, EPOLL_CTL_ADD, tap, &interest);
    }
    for (int i = 0; i < senders; i++) {
        all[i] = (struct sender){.fd = dial(port), .request = -1, .held = malloc(ANSWER_MAX)};
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &interest);
    }
    while (answered < request_count || (nats_port && now_ns() - last_record_ns < 1000000000)) {
        double elapsed = (double)now_ns() / 1e9 - start;
        for (int i = 0; i < senders && next < request_count && plan[next].due <= elapsed; i++)
            if (all[i].request < 0) {
                int is_waiting = 0;
                for (int k = 0; k < senders; k++)
                    is_waiting |= all[k].request >= 0 && plan[all[k].request].run == plan[next].run;
                if (is_waiting) break;
                send_request(&all[i], next++);
            }
        struct epoll_event events[64];
        int ready = epoll_wait(poller, events, 64, 1);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr)
                take_answer(events[i].data.ptr);
            else
                take_tap(tap, tapped, &tapped_bytes);
    }
    fclose(out);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"requests\": %d, \"answered\": %lld, \"refused\": %lld, \"records\": %lld, \"cpu_s\": %.3f}\n", request_count,
        (long long)answered, (long long)refused, (long long)records,
        (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    return refused ? 1 : 0;
}
