/* Many WebSocket subscribers in one process, by epoll: what every client in C of the benchmarks shares.
 *
 * A connection says what its entry of a preamble file says (chaos/load/preambles.py): upgrade, hello with
 * a token of its own, subscribe. From `subscribed` on each topic's frames must follow each other (+1), and
 * with verify_payload every byte must be the one that known_payloads.py says. Whatever is wrong is counted:
 * `violations` for what no client may get, `ended` for connections that ended; the reason of the last one
 * is kept. Heartbeats of the client go out every 15 s. Nothing is allocated per frame; bytes of a frame
 * that is not complete yet wait in a buffer of its connection.
 *
 *   struct stream_loop loop = {.port = 8473, .opening_max = 32, .opens_per_s = 200, .verify_payload = 1};
 *   if (stream_load(&loop, "preambles")) return 2;      // allocates loop.all, loop.count
 *   loop.on_frame = took;                               // optional, see below
 *   while (loop.live < loop.count) stream_step(&loop, 100);   // opens, reads, verifies, beats
 *   ...
 *   stream_close(&loop);
 *
 * Not thread-safe. Everything is static: include it once in each program. */
#ifndef KHALA_STREAM_H
#define KHALA_STREAM_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
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

enum {
    STREAM_READ_BYTES = 512 * 1024, /* one read(2); a message of the node is at most 320 KiB */
    STREAM_MESSAGE_MAX = 1024 * 1024,
    STREAM_PATTERN_BYTES = 512 * 1024,
    STREAM_HEARTBEAT_S = 15,
    STREAM_EVENTS = 256, /* connections that one step reads */
    STREAM_RETRY_S = 1
};

enum stream_state {
    STREAM_IDLE,       /* not connected yet, or refused and waiting to come back */
    STREAM_CONNECTING, /* connect(2) is under way */
    STREAM_UPGRADING,  /* waits for the 101 */
    STREAM_SUBSCRIBING,/* waits for the `subscribed` of every topic */
    STREAM_LIVE,
    STREAM_ENDED
};

struct stream_topic {
    char *name;
    size_t name_length;
    int64_t last_seq;     /* of the last frame, or what subscribed said; -1: not known yet */
    int64_t replayed_to;  /* through_seq of replay_complete, -1 before it */
    int is_subscribed;
};

struct stream {
    int index; /* place in the preamble file */
    int fd;
    enum stream_state state;
    int is_paused;
    size_t upgrade_bytes, message_bytes, sent;
    unsigned char *preamble;
    int topics;
    int subscribed;
    int last_topic; /* where the previous frame was found */
    struct stream_topic *topic;
    unsigned char *held; /* bytes of a message that is not complete */
    size_t held_bytes, held_room;
    double retry_at, opened_at, live_at, beat_at;
    int64_t frames, bytes;
    int close_code; /* of the close frame, 0: none came */
    void *user;
};

struct stream_loop {
    /* set by the program */
    int port;
    int receive_buffer;  /* SO_RCVBUF, 0: the kernel's own */
    int opening_max;     /* connections between connect and live at once; 0: all */
    double opens_per_s;  /* pace of connecting; 0: none. The node admits 250 a second by default. */
    int verify_payload;
    int keep_ended;      /* 1: a connection that ends is not an error to be reported by stream_step */
    FILE *log;           /* optional: a struct stream_log_entry for each frame */
    /* optional; `now_ns` is CLOCK_REALTIME at the read(2) that brought it */
    void (*on_frame)(struct stream_loop *, struct stream *, int topic, int64_t seq,
        const unsigned char *payload, size_t payload_bytes, int64_t now_ns);
    void (*on_live)(struct stream_loop *, struct stream *);
    void (*on_replayed)(struct stream_loop *, struct stream *, int topic, int64_t through_seq);
    void (*on_ended)(struct stream_loop *, struct stream *);
    void (*on_welcome)(struct stream_loop *, struct stream *);
    /* optional: seconds after which a refused connection comes back, STREAM_RETRY_S without it. `said` is an Error
     * of the node, or an answer of HTTP that is no 101; NULL: it hung up without one */
    double (*retry_in)(struct stream_loop *, struct stream *, const unsigned char *said, size_t size);
    /* optional: whether an Error before the subscribe is answered means: come back (else: rate_limited alone does) */
    int (*is_refusal)(struct stream_loop *, struct stream *, const unsigned char *error, size_t size);
    /* a peer's messages instead of the node's (native/centrifugo.h) */
    void (*take_message)(struct stream_loop *, struct stream *, const unsigned char *, const unsigned char *, int64_t);
    void *user;
    /* kept here */
    const unsigned char *entry; /* of the frame that on_frame is told of, without its tag and length */
    size_t entry_bytes;
    struct stream *all;
    int count, next, opening, live, ended;
    int64_t frames, bytes, messages, heartbeats, refused, violations;
    char reason[160]; /* of the last violation, error message or end */
    int poller;
    double open_credit, credit_at, beats_at;
    unsigned char *buffer;
    char *pattern;
};

struct stream_log_entry {
    uint32_t connection, topic;
    int64_t seq, received_ns;
};

static int64_t stream_wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double stream_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* CPU seconds of this process so far. */
static double stream_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
        + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Room for as many descriptors as the system lets us have. */
static void stream_raise_descriptors(void)
{
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Write text as the inside of a JSON string: printable ASCII as it is, the rest as dots. */
static void stream_print_text(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(*text < 32 || *text > 126 || *text == '"' || *text == '\\' ? '.' : *text, out);
}

static void stream_note(struct stream_loop *loop, struct stream *s, const char *what, const unsigned char *text,
    size_t size)
{
    snprintf(loop->reason, sizeof loop->reason, "connection %d: %s%s%.*s", s->index, what, size ? ": " : "",
        (int)(size > 80 ? 80 : size), text ? (const char *)text : "");
}

static void stream_violation(struct stream_loop *loop, struct stream *s, const char *what)
{
    if (!loop->violations) stream_note(loop, s, what, NULL, 0);
    loop->violations++;
}

static const unsigned char *stream_varint(const unsigned char *p, const unsigned char *end, uint64_t *value)
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

/* One field of a protobuf message. Returns what follows it, NULL if it is broken. For length-delimited
 * ones *data and *value are its bytes and their number; for varints *value is the value. */
static const unsigned char *stream_field(const unsigned char *p, const unsigned char *end, int *number,
    const unsigned char **data, uint64_t *value)
{
    uint64_t tag;
    if (!(p = stream_varint(p, end, &tag))) return NULL;
    *number = (int)(tag >> 3);
    *data = NULL;
    switch (tag & 7) {
    case 0:
        return stream_varint(p, end, value);
    case 1:
        return end - p < 8 ? NULL : p + 8;
    case 2:
        if (!(p = stream_varint(p, end, value)) || *value > (uint64_t)(end - p)) return NULL;
        *data = p;
        return p + *value;
    case 5:
        return end - p < 4 ? NULL : p + 4;
    default:
        return NULL;
    }
}

/* Read the preamble file. Returns 0, or -1 with a word on stderr. */
static int stream_load(struct stream_loop *loop, const char *name)
{
    FILE *file = fopen(name, "rb");
    int room = 0;
    if (!file) {
        perror(name);
        return -1;
    }
    loop->all = NULL;
    loop->count = 0;
    for (;;) {
        uint32_t head[3];
        if (fread(head, sizeof head, 1, file) != 1) break;
        if (loop->count == room) {
            room = room ? room * 2 : 64;
            loop->all = realloc(loop->all, (size_t)room * sizeof *loop->all);
            if (!loop->all) return -1;
        }
        struct stream *s = &loop->all[loop->count];
        memset(s, 0, sizeof *s);
        s->index = loop->count++;
        s->fd = -1;
        s->upgrade_bytes = head[0];
        s->message_bytes = head[1];
        s->topics = (int)head[2];
        s->preamble = malloc((size_t)head[0] + head[1] + 1);
        s->topic = calloc((size_t)s->topics + 1, sizeof *s->topic);
        if (!s->preamble || !s->topic || fread(s->preamble, 1, (size_t)head[0] + head[1], file) != (size_t)head[0] + head[1])
            goto broken;
        for (int i = 0; i < s->topics; i++) {
            uint16_t length;
            struct stream_topic *t = &s->topic[i];
            if (fread(&length, 2, 1, file) != 1 || !(t->name = malloc((size_t)length + 1))
                || fread(t->name, 1, length, file) != length || fread(&t->last_seq, 8, 1, file) != 1)
                goto broken;
            t->name[length] = 0;
            t->name_length = length;
            t->replayed_to = -1;
            t->is_subscribed = t->last_seq >= 0;
            s->subscribed += t->is_subscribed;
        }
    }
    fclose(file);
    loop->poller = epoll_create1(0);
    loop->buffer = malloc(STREAM_MESSAGE_MAX + STREAM_READ_BYTES);
    loop->pattern = malloc(STREAM_PATTERN_BYTES + 26);
    if (!loop->buffer || !loop->pattern || loop->poller < 0) return -1;
    for (int i = 0; i < STREAM_PATTERN_BYTES + 26; i++) loop->pattern[i] = (char)('a' + i % 26);
    stream_raise_descriptors();
    return 0;
broken:
    fprintf(stderr, "%s: entry %d is not complete\n", name, loop->count - 1);
    fclose(file);
    return -1;
}

/* Whether these bytes are the payload of this seq (known_payloads.py). */
static int stream_is_payload(const struct stream_loop *loop, int64_t seq, const unsigned char *p, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    if (size < 16 || size > STREAM_PATTERN_BYTES) return 0;
    for (int i = 0; i < 16; i++)
        if (p[i] != digits[(uint64_t)seq >> (60 - 4 * i) & 15]) return 0;
    return !memcmp(p + 16, loop->pattern + (seq + 16) % 26, size - 16);
}

static int stream_find_topic(struct stream *s, const unsigned char *name, size_t length)
{
    for (int n = 0, i = s->last_topic; n < s->topics; n++, i = i + 1 < s->topics ? i + 1 : 0)
        if (s->topic[i].name_length == length && !memcmp(s->topic[i].name, name, length)) return s->last_topic = i;
    return -1;
}

/* One frame of topic `at`: its place, its payload, the count, the log, the program's own callback. */
static void stream_check_frame(struct stream_loop *loop, struct stream *s, int at, int64_t seq,
    const unsigned char *payload, size_t payload_bytes, int64_t now_ns)
{
    struct stream_topic *t = &s->topic[at];
    if (t->last_seq < 0)
        stream_violation(loop, s, "a frame before subscribed");
    else if (seq != t->last_seq + 1)
        stream_violation(loop, s, "a frame repeated or left out");
    t->last_seq = seq;
    if (loop->verify_payload && !stream_is_payload(loop, seq, payload, payload_bytes))
        stream_violation(loop, s, "another payload than was written");
    loop->frames++;
    s->frames++;
    if (loop->log) {
        struct stream_log_entry entry = {(uint32_t)s->index, (uint32_t)at, seq, now_ns};
        fwrite(&entry, sizeof entry, 1, loop->log);
    }
    if (loop->on_frame) loop->on_frame(loop, s, at, seq, payload, payload_bytes, now_ns);
}

/* One KhalaFrame: topic 1, seq 2, kind 3, payload 4, schema_version 5, in this order. */
static void stream_take_frame(
    struct stream_loop *loop, struct stream *s, const unsigned char *p, const unsigned char *end, int64_t now_ns)
{
    uint64_t length, seq = 0, payload_bytes = 0;
    const unsigned char *payload = p, *entry = p;
    if (p >= end || *p != 0x0A || !(p = stream_varint(p + 1, end, &length)) || length > (uint64_t)(end - p)) goto broken;
    int at = stream_find_topic(s, p, (size_t)length);
    if (at < 0) {
        stream_violation(loop, s, "a frame of a topic that was not asked for");
        return;
    }
    p += length;
    if (p >= end || *p != 0x10 || !(p = stream_varint(p + 1, end, &seq))) goto broken;
    if (p >= end || *p != 0x1A || !(p = stream_varint(p + 1, end, &length)) || length > (uint64_t)(end - p)) goto broken;
    p += length;
    if (p < end && *p == 0x22) {
        if (!(p = stream_varint(p + 1, end, &payload_bytes)) || payload_bytes > (uint64_t)(end - p)) goto broken;
        payload = p;
    }
    loop->entry = entry;
    loop->entry_bytes = (size_t)(end - entry);
    stream_check_frame(loop, s, at, (int64_t)seq, payload, (size_t)payload_bytes, now_ns);
    return;
broken:
    stream_violation(loop, s, "a frame that cannot be read");
}

/* Topic (field 1) and one number of a control message. Returns the topic's place, -1 if there is none. */
static int stream_read_control(
    struct stream *s, const unsigned char *p, const unsigned char *end, int wanted, int64_t *number)
{
    int field, at = -1;
    const unsigned char *data;
    uint64_t value = 0;
    *number = 0;
    while (p && p < end) {
        if (!(p = stream_field(p, end, &field, &data, &value))) return -1;
        if (field == 1 && data) at = stream_find_topic(s, data, (size_t)value);
        else if (field == wanted && !data) *number = (int64_t)value;
    }
    return at;
}

static void stream_become_live(struct stream_loop *loop, struct stream *s)
{
    s->state = STREAM_LIVE;
    s->live_at = stream_now_s();
    loop->opening--;
    loop->live++;
    if (loop->on_live) loop->on_live(loop, s);
}

static void stream_retry(struct stream_loop *loop, struct stream *s, const unsigned char *said, size_t size);

/* One ServerMessage. */
static void stream_take_message(
    struct stream_loop *loop, struct stream *s, const unsigned char *p, const unsigned char *end, int64_t now_ns)
{
    loop->messages++;
    while (p && p < end) {
        int field, at;
        const unsigned char *data;
        uint64_t size;
        int64_t number;
        if (!(p = stream_field(p, end, &field, &data, &size)) || !data) {
            stream_violation(loop, s, "a message that cannot be read");
            return;
        }
        switch (field) {
        case 1:
            stream_take_frame(loop, s, data, data + size, now_ns);
            break;
        case 2:
            if (loop->on_welcome) loop->on_welcome(loop, s);
            break;
        case 3: /* subscribed: start_seq is its field 8 */
            at = stream_read_control(s, data, data + size, 8, &number);
            if (at < 0) break;
            s->topic[at].last_seq = number;
            if (!s->topic[at].is_subscribed) {
                s->topic[at].is_subscribed = 1;
                if (++s->subscribed == s->topics && s->state == STREAM_SUBSCRIBING) stream_become_live(loop, s);
            }
            break;
        case 4: /* replay_complete: through_seq is its field 2 */
            at = stream_read_control(s, data, data + size, 2, &number);
            if (at < 0) break;
            if (number != s->topic[at].last_seq) stream_violation(loop, s, "replay_complete at another seq");
            s->topic[at].replayed_to = number;
            if (loop->on_replayed) loop->on_replayed(loop, s, at, number);
            break;
        case 5: /* unsubscribed */
            stream_violation(loop, s, "unsubscribed");
            break;
        case 6:
            loop->heartbeats++;
            break;
        case 8:
            stream_violation(loop, s, "stale_cursor");
            break;
        case 10: { /* error: code is its field 1 */
            int first;
            const unsigned char *code;
            uint64_t code_bytes;
            if (stream_field(data, data + size, &first, &code, &code_bytes) && first == 1 && code) {
                if (s->state == STREAM_SUBSCRIBING
                    && (loop->is_refusal ? loop->is_refusal(loop, s, data, (size_t)size)
                                         : code_bytes == 12 && !memcmp(code, "rate_limited", 12))) {
                    stream_retry(loop, s, data, (size_t)size);
                    return;
                }
                stream_note(loop, s, "error", code, (size_t)code_bytes);
            }
            if (!loop->keep_ended) loop->violations++;
            break;
        }
        default: /* lagging, renewed, go_away, and what is newer than this */
            break;
        }
    }
}

static void stream_end(struct stream_loop *loop, struct stream *s, const char *why)
{
    if (s->state == STREAM_ENDED) return;
    if (s->state == STREAM_LIVE) loop->live--;
    else if (s->state != STREAM_IDLE) loop->opening--;
    if (why && !loop->keep_ended && !loop->reason[0]) stream_note(loop, s, why, NULL, 0);
    s->state = STREAM_ENDED;
    loop->ended++;
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
    free(s->held);
    s->held = NULL;
    s->held_bytes = s->held_room = 0;
    if (loop->on_ended) loop->on_ended(loop, s);
}

/* Above the node's rate: it said so after the upgrade, or answered it by something else than 101. Come back. */
static void stream_retry(struct stream_loop *loop, struct stream *s, const unsigned char *said, size_t size)
{
    double retry_s = loop->retry_in ? loop->retry_in(loop, s, said, size) : STREAM_RETRY_S;
    loop->refused++;
    loop->opening--;
    close(s->fd);
    s->fd = -1;
    s->state = STREAM_IDLE;
    s->sent = s->held_bytes = 0;
    s->retry_at = stream_now_s() + retry_s;
}

static void stream_interest(struct stream_loop *loop, struct stream *s, int operation, uint32_t events)
{
    struct epoll_event interest = {.events = events, .data.ptr = s};
    epoll_ctl(loop->poller, operation, s->fd, &interest);
}

/* Stop reading from a connection, and go on. The kernel's buffers fill meanwhile. */
static void stream_pause(struct stream_loop *loop, struct stream *s)
{
    if (s->fd >= 0 && !s->is_paused) stream_interest(loop, s, EPOLL_CTL_MOD, 0);
    s->is_paused = 1;
}

static void stream_resume(struct stream_loop *loop, struct stream *s)
{
    if (s->fd >= 0 && s->is_paused) stream_interest(loop, s, EPOLL_CTL_MOD, EPOLLIN);
    s->is_paused = 0;
}

/* Send bytes of the preamble up to `until`; what the kernel does not take now goes later. */
static void stream_say(struct stream_loop *loop, struct stream *s, size_t until)
{
    while (s->sent < until) {
        ssize_t taken = send(s->fd, s->preamble + s->sent, until - s->sent, MSG_NOSIGNAL);
        if (taken > 0) {
            s->sent += (size_t)taken;
        } else if (errno == EAGAIN) {
            stream_interest(loop, s, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        } else {
            stream_end(loop, s, strerror(errno));
            return;
        }
    }
    stream_interest(loop, s, EPOLL_CTL_MOD, s->is_paused ? 0 : EPOLLIN);
}

static void stream_begin_messages(struct stream_loop *loop, struct stream *s)
{
    s->state = STREAM_SUBSCRIBING;
    s->beat_at = stream_now_s() + STREAM_HEARTBEAT_S;
    if (s->message_bytes) stream_say(loop, s, s->upgrade_bytes + s->message_bytes);
    if (s->state == STREAM_SUBSCRIBING && s->subscribed == s->topics) stream_become_live(loop, s);
}

static void stream_open(struct stream_loop *loop, struct stream *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)loop->port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    loop->opening++;
    s->state = STREAM_CONNECTING;
    s->opened_at = stream_now_s();
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) {
        stream_end(loop, s, strerror(errno));
        return;
    }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (loop->receive_buffer)
        setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &loop->receive_buffer, sizeof loop->receive_buffer);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        stream_end(loop, s, strerror(errno));
        return;
    }
    stream_interest(loop, s, EPOLL_CTL_ADD, EPOLLOUT);
}

static void stream_connected(struct stream_loop *loop, struct stream *s)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        stream_end(loop, s, strerror(error));
        return;
    }
    if (!s->upgrade_bytes) {
        stream_begin_messages(loop, s);
        return;
    }
    s->state = STREAM_UPGRADING;
    stream_say(loop, s, s->upgrade_bytes);
}

/* Keep bytes that are no whole message yet. */
static void stream_hold(struct stream_loop *loop, struct stream *s, const unsigned char *p, size_t size)
{
    if (size > s->held_room) {
        unsigned char *room = realloc(s->held, size < 1024 ? 1024 : size * 2);
        if (!room) {
            stream_end(loop, s, "no memory");
            return;
        }
        s->held = room;
        s->held_room = size < 1024 ? 1024 : size * 2;
    }
    if (size) memmove(s->held, p, size);
    s->held_bytes = size;
    if (!size && s->held_room > 4096) {
        free(s->held);
        s->held = NULL;
        s->held_room = 0;
    }
}

/* Take what is whole of the bytes; returns how many were taken. */
static size_t stream_take(struct stream_loop *loop, struct stream *s, unsigned char *bytes, size_t size, int64_t now_ns)
{
    size_t at = 0;
    if (s->state == STREAM_UPGRADING) {
        unsigned char *end = memmem(bytes, size, "\r\n\r\n", 4);
        if (!end) return 0;
        if (size < 12 || memcmp(bytes, "HTTP/1.1 101", 12)) {
            stream_note(loop, s, "upgrade answered", bytes, size < 12 ? size : 12);
            stream_retry(loop, s, bytes, size);
            return size;
        }
        at = (size_t)(end - bytes) + 4;
        stream_begin_messages(loop, s);
    }
    while (s->state != STREAM_ENDED && s->state != STREAM_IDLE && size - at >= 2) {
        unsigned char *p = bytes + at;
        uint64_t length = p[1] & 127;
        size_t header = 2;
        if (length == 126) {
            header = 4;
            if (size - at < header) break;
            length = (uint64_t)p[2] << 8 | p[3];
        } else if (length == 127) {
            header = 10;
            if (size - at < header) break;
            length = 0;
            for (int i = 0; i < 8; i++) length = length << 8 | p[2 + i];
        }
        if (length > STREAM_MESSAGE_MAX - 16) {
            stream_violation(loop, s, "a message that is too large");
            stream_end(loop, s, "a message that is too large");
            break;
        }
        if (size - at < header + length) break;
        if ((p[0] & 15) == 2) {
            if (loop->take_message) loop->take_message(loop, s, p + header, p + header + length, now_ns);
            else stream_take_message(loop, s, p + header, p + header + length, now_ns);
        } else if ((p[0] & 15) == 8) {
            if (length >= 2) s->close_code = p[header] << 8 | p[header + 1];
            stream_end(loop, s, "closed by the node");
        }
        at += header + length;
    }
    return at;
}

static void stream_read(struct stream_loop *loop, struct stream *s)
{
    size_t held = s->held_bytes;
    if (held) memcpy(loop->buffer, s->held, held);
    ssize_t got = recv(s->fd, loop->buffer + held, STREAM_READ_BYTES, 0);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (s->state == STREAM_UPGRADING) stream_retry(loop, s, NULL, 0);
        else stream_end(loop, s, got ? strerror(errno) : "ended without a close frame");
        return;
    }
    loop->bytes += got;
    s->bytes += got;
    size_t size = held + (size_t)got;
    size_t taken = stream_take(loop, s, loop->buffer, size, stream_wall_ns());
    if (s->state != STREAM_ENDED && s->state != STREAM_IDLE) stream_hold(loop, s, loop->buffer + taken, size - taken);
}

static void stream_open_due(struct stream_loop *loop, double now)
{
    if (loop->opens_per_s > 0) {
        if (!loop->credit_at) loop->credit_at = now;
        loop->open_credit += (now - loop->credit_at) * loop->opens_per_s;
        loop->credit_at = now;
        double most = loop->opens_per_s / 20 + 1;
        if (loop->open_credit > most) loop->open_credit = most;
    }
    int busy = loop->opening + loop->live + loop->ended;
    for (int looked = 0; busy < loop->count && looked < loop->count; looked++) {
        struct stream *s = &loop->all[loop->next];
        if (loop->opening_max && loop->opening >= loop->opening_max) return;
        if (loop->opens_per_s > 0 && loop->open_credit < 1) return;
        loop->next = loop->next + 1 < loop->count ? loop->next + 1 : 0;
        if (s->state != STREAM_IDLE || s->retry_at > now) continue;
        loop->open_credit -= 1;
        busy++;
        stream_open(loop, s);
    }
}

static void stream_beat(struct stream_loop *loop, double now)
{
    /* ClientMessage{heartbeat{}}, masked with zeros. */
    static const unsigned char heartbeat[] = {0x82, 0x82, 0, 0, 0, 0, 0x2A, 0};
    if (now < loop->beats_at) return;
    loop->beats_at = now + 0.25;
    for (int i = 0; i < loop->count; i++) {
        struct stream *s = &loop->all[i];
        if (s->state != STREAM_LIVE || !s->message_bytes || loop->take_message || now < s->beat_at) continue;
        s->beat_at = now + STREAM_HEARTBEAT_S;
        if (send(s->fd, heartbeat, sizeof heartbeat, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
            stream_end(loop, s, strerror(errno));
    }
}

/* Open what is due, wait for at most timeout_ms, read what has come, beat. Returns the number of events. */
static int stream_step(struct stream_loop *loop, int timeout_ms)
{
    struct epoll_event events[STREAM_EVENTS];
    double now = stream_now_s();
    stream_open_due(loop, now);
    int unopened = loop->opening + loop->live + loop->ended < loop->count;
    int ready = epoll_wait(loop->poller, events, STREAM_EVENTS, unopened && timeout_ms > 5 ? 5 : timeout_ms);
    for (int i = 0; i < ready; i++) {
        struct stream *s = events[i].data.ptr;
        if (s->fd < 0) continue;
        if (s->state == STREAM_CONNECTING) {
            stream_connected(loop, s);
            continue;
        }
        if (events[i].events & EPOLLOUT) {
            stream_say(loop, s, s->state == STREAM_UPGRADING ? s->upgrade_bytes : s->upgrade_bytes + s->message_bytes);
            if (s->fd < 0) continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) stream_read(loop, s);
    }
    stream_beat(loop, stream_now_s());
    return ready;
}

/* Close every connection, without a close frame. */
static void stream_close(struct stream_loop *loop)
{
    for (int i = 0; i < loop->count; i++)
        if (loop->all[i].fd >= 0) close(loop->all[i].fd);
    if (loop->log) fflush(loop->log);
}
#endif
