/* The watchers of an agent city: many connections that follow one topic each, leave and resume. One epoll loop,
 * nothing allocated per frame.
 *
 *   city_watch PORT SESSIONS TOPICS LINEAGE LOG START SECONDS QUIET_S
 *
 * SESSIONS has a line for each time that a watcher connects, ascending by OPEN:
 *   WATCHER TOPIC CLOSE OPEN TOKEN
 * TOPIC is a line of TOPICS (from 0); times are seconds after START (Unix seconds), CLOSE is when the session
 * before it is dropped without a word. The first subscribe is from the beginning, later ones with the cursor
 * (seq, lineage) of the last frame. A watcher stays until START + SECONDS and until nothing has come for QUIET_S.
 *
 * LOG gets a line for each message of frames: WATCHER FIRST_SEQ LAST_SEQ NANOSECONDS IS_LIVE (CLOCK_REALTIME, as soon
 * as the bytes were read; live: after replay_complete), then for each watcher
 *   = WATCHER TOPIC LAST_SEQ CRC32 GAPS
 * CRC32 is of all entries from the first frame on, as the journal has them. Prints one JSON line. */
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

enum { BUFFER = 1 << 20, HEARTBEAT_MS = 10000 };
enum phase { AWAY, UPGRADING, SUBSCRIBING, REPLAYING, LIVE };

struct watcher {
    int fd, topic;
    enum phase phase;
    int64_t last_seq, gaps, beat_at_ms, ask_at_ms; /* ask_at_ms: when to subscribe again, 0: not */
    uint32_t crc;
    char *token;
    unsigned char *rest; /* of a message that has not come whole */
    size_t rest_bytes;
};

struct session {
    int watcher, topic;
    double close_at, open_at;
    char *token;
};

static uint32_t crc_table[8][256];
static int64_t frames, errors, opened, resumed, asked_again, last_frame_ms;
static unsigned char buffer[BUFFER];
static FILE *out;
static char **topics;
static const char *lineage;
static int port, poller;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = crc_table[0][crc_table[k - 1][i] & 255] ^ (crc_table[k - 1][i] >> 8);
}

static uint32_t crc32_of(uint32_t crc, const unsigned char *p, size_t n)
{
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t low = crc ^ (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^ crc_table[5][low >> 16 & 255]
            ^ crc_table[4][low >> 24] ^ crc_table[3][p[4]] ^ crc_table[2][p[5]] ^ crc_table[1][p[6]]
            ^ crc_table[0][p[7]];
    }
    while (n--) crc = crc_table[0][(crc ^ *p++) & 255] ^ (crc >> 8);
    return ~crc;
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

static unsigned char *put_varint(unsigned char *p, uint64_t value)
{
    for (; value > 127; value >>= 7) *p++ = (unsigned char)(value | 128);
    *p++ = (unsigned char)value;
    return p;
}

static unsigned char *put_text(unsigned char *p, int field, const char *text, size_t size)
{
    *p++ = (unsigned char)(field << 3 | 2);
    p = put_varint(p, size);
    memcpy(p, text, size);
    return p + size;
}

/* A client's frame; a mask of zeros is a mask. */
static unsigned char *put_frame(unsigned char *p, const unsigned char *payload, size_t size)
{
    *p++ = 0x82;
    if (size < 126) {
        *p++ = (unsigned char)(0x80 | size);
    } else {
        *p++ = 0x80 | 126;
        *p++ = (unsigned char)(size >> 8);
        *p++ = (unsigned char)size;
    }
    memset(p, 0, 4);
    memcpy(p + 4, payload, size);
    return p + 4 + size;
}

static void send_whole(struct watcher *w, const unsigned char *data, size_t size)
{
    if (write(w->fd, data, size) != (ssize_t)size) {
        errors++;
        fprintf(stderr, "watcher: cannot send: %s\n", strerror(errno));
    }
}

static void drop(struct watcher *w)
{
    if (w->phase != AWAY) {
        epoll_ctl(poller, EPOLL_CTL_DEL, w->fd, NULL);
        close(w->fd);
    }
    free(w->rest);
    w->rest = NULL;
    w->rest_bytes = 0;
    w->phase = AWAY;
}

static void open_session(struct watcher *w, char *token)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = w};
    char upgrade[512];
    drop(w);
    w->token = token;
    w->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (w->fd < 0 || connect(w->fd, (struct sockaddr *)&address, sizeof address)) {
        fprintf(stderr, "watcher: cannot connect: %s\n", strerror(errno));
        exit(1);
    }
    fcntl(w->fd, F_SETFL, O_NONBLOCK);
    setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    w->phase = UPGRADING;
    epoll_ctl(poller, EPOLL_CTL_ADD, w->fd, &interest);
    int size = snprintf(upgrade, sizeof upgrade,
        "GET /sync/v1/ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: khala.v1\r\n\r\n", port);
    send_whole(w, (unsigned char *)upgrade, (size_t)size);
    opened++;
    resumed += w->last_seq > 0;
}

/* subscribe{topic, cursor or beginning} */
static unsigned char *put_subscribe(unsigned char *wire, const struct watcher *w)
{
    unsigned char body[512], inner[512], message[600], *p, *q;
    const char *topic = topics[w->topic];
    p = put_text(body, 1, topic, strlen(topic));
    if (w->last_seq > 0) {
        q = inner;
        *q++ = 0x08;
        q = put_varint(q, (uint64_t)w->last_seq);
        q = put_text(q, 2, lineage, strlen(lineage));
        p = put_text(p, 2, (char *)inner, (size_t)(q - inner));
    } else {
        *p++ = 0x18;
        *p++ = 1;
    }
    q = put_text(inner, 1, (char *)body, (size_t)(p - body));
    q = put_text(message, 2, (char *)inner, (size_t)(q - inner));
    return put_frame(wire, message, (size_t)(q - message));
}

/* hello{token, device_id, client_build_id, protocol 1..1, schema 1..1}, then the subscribe. */
static void say_hello(struct watcher *w)
{
    static const unsigned char versions[] = {0x2A, 4, 0x08, 1, 0x10, 1, 0x32, 4, 0x08, 1, 0x10, 1};
    unsigned char body[8192], message[8200], wire[17000], *p, *q, *end;
    const char *device = strchr(w->token, ' ') + 1;
    p = put_text(body, 1, w->token, (size_t)(device - 1 - w->token));
    p = put_text(p, 3, device, strlen(device));
    p = put_text(p, 4, "bench", 5);
    memcpy(p, versions, sizeof versions);
    p += sizeof versions;
    q = put_text(message, 1, (char *)body, (size_t)(p - body));
    end = put_frame(wire, message, (size_t)(q - message));
    end = put_subscribe(end, w);
    send_whole(w, wire, (size_t)(end - wire));
    w->phase = SUBSCRIBING;
    w->beat_at_ms = now_ns() / 1000000 + HEARTBEAT_MS;
}

static void take_frames(struct watcher *w, int number, const unsigned char *p, const unsigned char *end, int64_t at)
{
    int64_t first = w->last_seq + 1;
    w->crc = crc32_of(w->crc, p, (size_t)(end - p));
    while (p < end) {
        uint64_t length, topic_length, seq;
        const unsigned char *frame = *p == 0x0A ? read_varint(p + 1, end, &length) : NULL;
        if (!frame || length > (uint64_t)(end - frame) || *frame != 0x0A) {
            w->gaps++;
            return;
        }
        const unsigned char *q = read_varint(frame + 1, end, &topic_length);
        if (!q || topic_length != strlen(topics[w->topic]) || memcmp(q, topics[w->topic], topic_length)
            || q[topic_length] != 0x10 || !read_varint(q + topic_length + 1, end, &seq)) {
            w->gaps++;
            return;
        }
        if ((int64_t)seq != w->last_seq + 1) w->gaps++;
        w->last_seq = (int64_t)seq;
        frames++;
        p = frame + length;
    }
    last_frame_ms = at / 1000000;
    fprintf(out, "%d %lld %lld %lld %d\n", number, (long long)first, (long long)w->last_seq, (long long)at,
        w->phase == LIVE);
}

static int take_message(struct watcher *w, int number, int opcode, const unsigned char *p, size_t size, int64_t at)
{
    if (opcode == 8) {
        fprintf(stderr, "watcher %d: closed %d\n", number, size > 1 ? p[0] << 8 | p[1] : 0);
        errors++;
        drop(w);
        return 0;
    }
    if (opcode != 2 || !size) return 1;
    switch (p[0] >> 3) {
    case 1: take_frames(w, number, p, p + size, at); break;
    case 3: w->phase = REPLAYING; break;
    case 4: w->phase = LIVE; break;
    case 2: case 6: break;
    case 10: /* a database that is busy: the cursor stays valid, ask again */
        if (w->phase == SUBSCRIBING && memmem(p, size, "unavailable", 11)) {
            w->ask_at_ms = at / 1000000 + 1000;
            asked_again++;
            break;
        }
        /* fall through */
    default:
        fprintf(stderr, "watcher %d: control message %d: %.*s\n", number, p[0] >> 3, (int)(size < 200 ? size : 200), p);
        errors++;
    }
    return 1;
}

static void receive(struct watcher *w, int number)
{
    size_t held = w->rest_bytes, at = 0;
    memcpy(buffer, w->rest, held);
    ssize_t got = read(w->fd, buffer + held, BUFFER - held);
    int64_t received_at = now_ns();
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN) return;
        fprintf(stderr, "watcher %d: the connection ended\n", number);
        errors++;
        drop(w);
        return;
    }
    held += (size_t)got;
    if (w->phase == UPGRADING) {
        unsigned char *end = memmem(buffer, held, "\r\n\r\n", 4);
        if (end) {
            if (memcmp(buffer, "HTTP/1.1 101", 12)) {
                fprintf(stderr, "watcher %d: %.*s\n", number, 60, buffer);
                errors++;
                drop(w);
                return;
            }
            at = (size_t)(end - buffer) + 4;
            say_hello(w);
        }
    }
    while (w->phase != UPGRADING && held - at >= 2) {
        unsigned char *p = buffer + at;
        uint64_t length = p[1] & 127;
        size_t header = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (held - at < header) break;
        if (header > 2) {
            length = 0;
            for (size_t i = 2; i < header; i++) length = length << 8 | p[i];
        }
        if (held - at < header + length) break;
        if (!take_message(w, number, p[0] & 15, p + header, length, received_at)) return;
        at += header + length;
    }
    if (held - at > w->rest_bytes) w->rest = realloc(w->rest, held - at);
    w->rest_bytes = held - at;
    memcpy(w->rest, buffer + at, w->rest_bytes);
}

static void beat(struct watcher *all, int watchers, int64_t now_ms)
{
    static const unsigned char heartbeat[] = {0x82, 0x82, 0, 0, 0, 0, 0x2A, 0};
    for (int i = 0; i < watchers; i++) {
        struct watcher *w = &all[i];
        if (w->ask_at_ms && now_ms >= w->ask_at_ms) {
            unsigned char wire[700];
            w->ask_at_ms = 0;
            if (w->phase == SUBSCRIBING) send_whole(w, wire, (size_t)(put_subscribe(wire, w) - wire));
        }
        if (w->phase < SUBSCRIBING || now_ms < w->beat_at_ms) continue;
        send_whole(w, heartbeat, sizeof heartbeat);
        w->beat_at_ms = now_ms + HEARTBEAT_MS;
    }
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

int main(int argc, char **argv)
{
    if (argc != 9) return 2;
    int session_count, topic_count, watchers = 0, next_open = 0, next_close = 0;
    port = atoi(argv[1]);
    char **lines = read_lines(argv[2], &session_count);
    topics = read_lines(argv[3], &topic_count);
    lineage = argv[4];
    out = fopen(argv[5], "w");
    double start = atof(argv[6]), seconds = atof(argv[7]), quiet_s = atof(argv[8]);
    struct session *sessions = calloc((size_t)session_count, sizeof *sessions);
    make_crc_table();
    poller = epoll_create1(0);
    for (int i = 0; i < session_count; i++) {
        int used = 0;
        struct session *s = &sessions[i];
        if (sscanf(lines[i], "%d %d %lf %lf %n", &s->watcher, &s->topic, &s->close_at, &s->open_at, &used) != 4) return 2;
        s->token = lines[i] + used;
        if (s->watcher >= watchers) watchers = s->watcher + 1;
    }
    struct watcher *all = calloc((size_t)watchers, sizeof *all);
    if (!out || !all) return 2;
    for (int64_t beat_at_ms = 0;;) {
        int64_t now = now_ns();
        double elapsed = (double)now / 1e9 - start;
        for (; next_open < session_count && sessions[next_open].open_at <= elapsed; next_open++) {
            struct session *s = &sessions[next_open];
            all[s->watcher].topic = s->topic;
            open_session(&all[s->watcher], s->token);
        }
        if (next_close < next_open) next_close = next_open;
        for (; next_close < session_count && sessions[next_close].close_at <= elapsed; next_close++)
            drop(&all[sessions[next_close].watcher]);
        if (elapsed > seconds && (double)(now / 1000000 - last_frame_ms) > quiet_s * 1e3) break;
        if (now / 1000000 >= beat_at_ms) {
            beat(all, watchers, now / 1000000);
            beat_at_ms = now / 1000000 + 50;
        }
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, 2);
        for (int i = 0; i < ready; i++) {
            struct watcher *w = events[i].data.ptr;
            receive(w, (int)(w - all));
        }
    }
    int64_t gaps = 0;
    for (int i = 0; i < watchers; i++) {
        gaps += all[i].gaps;
        fprintf(out, "= %d %d %lld %u %lld\n", i, all[i].topic, (long long)all[i].last_seq, all[i].crc, (long long)all[i].gaps);
    }
    fclose(out);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"frames\": %lld, \"gaps\": %lld, \"errors\": %lld, \"opened\": %lld, \"resumed\": %lld, \"asked_again\": %lld, \"cpu_s\": %.3f}\n",
        (long long)frames, (long long)gaps, (long long)errors, (long long)opened, (long long)resumed, (long long)asked_again,
        (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    return gaps || errors ? 1 : 0;
}
