/* Publishes sealed records to NATS one after the other, as fast as the node takes them singly.
 *
 *   NATS_PASSWORD=... stadium_feed NATS_PORT USER SUBJECT NODE_PORT PREAMBLE
 *
 * PREAMBLE has one connection, which is the topic's first subscriber: a record is published as soon as this
 * one has the record before. So two records never meet in one write, and the node is never without work
 * while it still sends a record to the others. Answers one JSON line to each line of standard input:
 *
 *   open            log in at the broker, subscribe at the node
 *   run FILE S      publish each record of FILE within S seconds: i64 last seq, u32 length, bytes
 *
 * End of input ends it. */
#include "stream.h"
#include <poll.h>

static int broker = -1;

static void say(struct stream_loop *loop, int done, double seconds, double cpu_s)
{
    printf("{\"done\": %s, \"violations\": %lld, \"ended\": %d, \"seconds\": %.9f, \"cpu_s\": %.6f, \"reason\": \"",
        done ? "true" : "false", (long long)loop->violations, loop->ended, seconds, cpu_s);
    stream_print_text(stdout, loop->reason);
    printf("\"}\n");
    fflush(stdout);
}

static int send_all(const char *bytes, size_t size)
{
    while (size) {
        ssize_t taken = send(broker, bytes, size, MSG_NOSIGNAL);
        if (taken <= 0) return -1;
        bytes += taken;
        size -= (size_t)taken;
    }
    return 0;
}

/* Answer the broker's pings; anything with "-ERR" in it ends the feed. Lines may be cut anywhere: PING is
 * looked for in what is here, and an answer too many does no harm. */
static int hear_broker(int timeout_ms)
{
    char text[65536];
    struct pollfd input = {.fd = broker, .events = POLLIN};
    if (poll(&input, 1, timeout_ms) <= 0) return 0;
    ssize_t got = recv(broker, text, sizeof text - 1, 0);
    if (got <= 0) return -1;
    text[got] = 0;
    if (strstr(text, "-ERR")) {
        fprintf(stderr, "broker: %s\n", text);
        return -1;
    }
    return strstr(text, "PING") ? send_all("PONG\r\n", 6) : strstr(text, "PONG") ? 1 : 0;
}

static int log_in(int port, const char *user, const char *password)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char hello[1024];
    int one = 1;
    broker = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(broker, (struct sockaddr *)&address, sizeof address)) return -1;
    setsockopt(broker, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (hear_broker(5000) < 0) return -1; /* INFO */
    int size = snprintf(hello, sizeof hello,
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"user\":\"%s\",\"pass\":\"%s\"}\r\nPING\r\n", user, password);
    if (size >= (int)sizeof hello || send_all(hello, (size_t)size)) return -1;
    for (int tries = 0; tries < 50; tries++) {
        int heard = hear_broker(100);
        if (heard) return heard < 0 ? -1 : 0;
    }
    return -1;
}

static int publish(const char *subject, const unsigned char *record, uint32_t size)
{
    static char buffer[2 * 1024 * 1024];
    int head = snprintf(buffer, 1024, "PUB %s %u\r\n", subject, size);
    if (size > sizeof buffer - 2048) return -1;
    memcpy(buffer + head, record, size);
    memcpy(buffer + head + size, "\r\n", 2);
    return send_all(buffer, (size_t)head + size + 2);
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

static int run(struct stream_loop *loop, const char *subject, const unsigned char *bytes, size_t size, double seconds)
{
    struct stream_topic *topic = &loop->all[0].topic[0];
    double deadline = stream_now_s() + seconds;
    for (size_t at = 0; at + 12 <= size;) {
        int64_t last_seq;
        uint32_t length;
        memcpy(&last_seq, bytes + at, 8);
        memcpy(&length, bytes + at + 8, 4);
        if (publish(subject, bytes + at + 12, length)) return 0;
        at += 12 + (size_t)length;
        while (topic->last_seq < last_seq) {
            if (!stream_step(loop, 50) && stream_now_s() > deadline) return 0;
            if (loop->ended) return 0;
        }
    }
    return hear_broker(0) >= 0;
}

int main(int argc, char **argv)
{
    const char *password = getenv("NATS_PASSWORD");
    if (argc != 6 || !password) return 2;
    struct stream_loop loop = {.port = atoi(argv[4]), .verify_payload = 1};
    if (stream_load(&loop, argv[5]) || loop.count != 1 || loop.all[0].topics != 1) return 2;
    char line[4200], name[4096];
    double seconds;
    int is_open = 0;
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        struct pollfd input[2] = {{.fd = 0, .events = POLLIN}, {.fd = broker, .events = POLLIN}};
        if (poll(input, is_open ? 2 : 1, 50) >= 0 && is_open) {
            stream_step(&loop, 0);
            if (input[1].revents && hear_broker(0) < 0) return 1;
        }
        if (!(input[0].revents & (POLLIN | POLLHUP))) continue;
        if (!fgets(line, sizeof line, stdin)) break;
        double started = stream_now_s(), cpu_started = stream_cpu_s();
        int done = 0;
        if (!strncmp(line, "open", 4)) {
            done = !log_in(atoi(argv[1]), argv[2], password);
            is_open = done;
            while (done && loop.live < 1 && !loop.ended && stream_now_s() < started + 30) stream_step(&loop, 50);
            done = done && loop.live == 1;
        } else if (sscanf(line, "run %4095s %lf", name, &seconds) == 2) {
            size_t size = 0;
            unsigned char *bytes = read_file(name, &size);
            started = stream_now_s();
            done = bytes && run(&loop, argv[3], bytes, size, seconds);
            free(bytes);
        }
        say(&loop, done, stream_now_s() - started, stream_cpu_s() - cpu_started);
    }
    stream_close(&loop);
    return 0;
}
