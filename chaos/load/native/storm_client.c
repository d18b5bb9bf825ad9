/* Subscribers whose network fails all at once, and who come back as our clients do. See stream.h.
 *
 *   storm_client PORT PREAMBLES AGAIN LINEAGE FRAMES HAPPENINGS [--opens-per-s R] [--opening N] [--seed N]
 *
 * PREAMBLES has hello and subscribe of each connection's first life, one topic each; AGAIN its upgrade and hello,
 * with another token, of the second. There it resumes with the cursor (seq, LINEAGE) of the last frame that it has
 * applied. Before it comes back it waits for 0 to 250 ms, drawn; after a refusal for as long as it was told,
 * with the same token; after any other failure for 0 to twice the last limit, up to 30 s (SPEC section 6).
 *
 *   open S            connect everybody in the first life; answers when all are live, or after S seconds
 *   cut FIRST N S     reset connections FIRST..FIRST+N-1 at once; answers when all are live again, or after S seconds
 *   wait S            read for S seconds
 *   settle QUIET_S S  read until nothing has come for QUIET_S, or S seconds are over
 *   knock N SILENT    N more connections, 32 at a time, each of which says its upgrade and leaves with the answer,
 *                     while SILENT others are connected and say nothing
 *   quit              also: end of input
 *
 * FRAMES gets 24 bytes for each frame that was applied: u32 connection, u32 CRC-32 of the frame as the journal has
 * it, i64 seq, i64 Unix ns. HAPPENINGS gets a line of JSON for each thing that happened to a connection: cut,
 * refused (with what it was told, `is_told`: in words of the protocol), failed, welcome, live.
 *
 * The answer: {"done", "live", "repeats", "gaps", "violations", "refused", "told", "bare", "others", "seconds",
 * "cpu_s", "reason"}; told, bare and others are of `knock`. */
#include "stream.h"
#include <poll.h>

enum { SUBSCRIBE_MAX = 1024, ANSWER_MAX = 4096, KNOCKS_TOGETHER = 32 };
static const double FIRST_DELAY_S = 0.25, DELAY_MAX_S = 30;

struct life {
    int64_t applied;   /* seq of the last frame, -1: none yet */
    int is_welcome;    /* its token is spent */
    double delay_s;    /* limit of the next draw */
    double ask_at;     /* when to subscribe again; 0: not */
};

static struct life *lives;
static struct stream_loop again; /* what each says in its second life */
static const char *lineage;
static uint32_t crc_table[256];
static int64_t repeats, gaps;
static double last_frame_at;
static FILE *frames_file, *happenings;
static uint64_t random_state = 1;

static double draw(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

static uint32_t crc32_of(const unsigned char *p, size_t n)
{
    uint32_t crc = ~0u;
    while (n--) crc = crc_table[(crc ^ *p++) & 255] ^ (crc >> 8);
    return ~crc;
}

static void note(const struct stream *s, const char *what, const char *more)
{
    fprintf(happenings, "{\"connection\": %d, \"what\": \"%s\", \"at_ns\": %lld%s}\n", s->index, what,
        (long long)stream_wall_ns(), more);
}

static unsigned char *put_varint(unsigned char *p, uint64_t value)
{
    for (; value > 127; value >>= 7) *p++ = (unsigned char)(value | 128);
    *p++ = (unsigned char)value;
    return p;
}

static unsigned char *put_text(unsigned char *p, int field, const void *text, size_t size)
{
    *p++ = (unsigned char)(field << 3 | 2);
    p = put_varint(p, size);
    memcpy(p, text, size);
    return p + size;
}

/* ClientMessage{subscribe{topic, cursor}}, masked with zeros; returns its size. */
static size_t put_subscribe(unsigned char *wire, const struct stream *s)
{
    unsigned char cursor[128], start[SUBSCRIBE_MAX / 4], topics[SUBSCRIBE_MAX / 3], message[SUBSCRIBE_MAX / 2], *p, *q;
    q = cursor;
    *q++ = 0x08;
    q = put_varint(q, (uint64_t)lives[s->index].applied);
    q = put_text(q, 2, lineage, strlen(lineage));
    p = put_text(start, 1, s->topic[0].name, s->topic[0].name_length);
    p = put_text(p, 2, cursor, (size_t)(q - cursor));
    q = put_text(topics, 1, start, (size_t)(p - start));
    q = put_text(message, 2, topics, (size_t)(q - topics));
    size_t size = (size_t)(q - message);
    wire[0] = 0x82;
    size_t at = 2;
    if (size < 126) {
        wire[1] = (unsigned char)(0x80 | size);
    } else {
        wire[1] = 0x80 | 126;
        wire[2] = (unsigned char)(size >> 8);
        wire[3] = (unsigned char)size;
        at = 4;
    }
    memset(wire + at, 0, 4);
    memcpy(wire + at + 4, message, size);
    return at + 4 + size;
}

/* From now on it says what it says in its second life, and comes back when its draw is over. */
static void prepare_return(struct stream *s)
{
    struct stream *next = &again.all[s->index];
    unsigned char subscribe[SUBSCRIBE_MAX];
    size_t size = put_subscribe(subscribe, s), hello = next->upgrade_bytes + next->message_bytes;
    unsigned char *preamble = malloc(hello + size);
    if (!preamble) exit(3);
    memcpy(preamble, next->preamble, hello);
    memcpy(preamble + hello, subscribe, size);
    free(s->preamble);
    s->preamble = preamble;
    s->upgrade_bytes = next->upgrade_bytes;
    s->message_bytes = next->message_bytes + size;
}

static void forget_connection(struct stream *s)
{
    s->state = STREAM_IDLE;
    s->sent = s->held_bytes = 0;
    s->subscribed = s->topic[0].is_subscribed = 0;
    lives[s->index].ask_at = 0;
}

static void cut(struct stream_loop *loop, struct stream *s)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (s->state != STREAM_LIVE) {
        stream_violation(loop, s, "cut, and it was not live");
        return;
    }
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(s->fd);
    s->fd = -1;
    loop->live--;
    forget_connection(s);
    prepare_return(s);
    lives[s->index].is_welcome = 0;
    lives[s->index].delay_s = FIRST_DELAY_S;
    s->retry_at = stream_now_s() + draw() * FIRST_DELAY_S;
    note(s, "cut", "");
}

static double own_delay_s(struct stream *s)
{
    struct life *life = &lives[s->index];
    double delay_s = draw() * life->delay_s;
    life->delay_s = life->delay_s * 2 < DELAY_MAX_S ? life->delay_s * 2 : DELAY_MAX_S;
    return delay_s;
}

/* What a refusal says of the time to come back: retry_after_ms, by HTTP or in an Error; 0: nothing. */
static long told_ms(const unsigned char *said, size_t size, int *is_told)
{
    static const char member[] = "\"retry_after_ms\":";
    *is_told = said && !(size > 4 && !memcmp(said, "HTTP", 4));
    if (said && !*is_told) {
        const unsigned char *at = memmem(said, size, member, sizeof member - 1);
        long ms = 0;
        if (!at) return 0;
        for (at += sizeof member - 1; at < said + size && (*at == ' ' || *at == '"'); at++) continue;
        for (; at < said + size && *at >= '0' && *at <= '9'; at++) ms = ms * 10 + (*at - '0');
        return ms;
    }
    for (const unsigned char *p = said, *end = said + size; p && p < end;) {
        int field;
        const unsigned char *data;
        uint64_t value;
        if (!(p = stream_field(p, end, &field, &data, &value))) break;
        if (field == 6 && !data) return (long)value;
    }
    return 0;
}

static double retry_in(struct stream_loop *loop, struct stream *s, const unsigned char *said, size_t size)
{
    char more[96];
    int is_told;
    long ms = told_ms(said, size, &is_told);
    (void)loop;
    s->subscribed = s->topic[0].is_subscribed = 0;
    if (!said) {
        note(s, "failed", "");
        return own_delay_s(s);
    }
    snprintf(more, sizeof more, ", \"retry_after_ms\": %ld, \"is_told\": %s", ms, is_told ? "true" : "false");
    note(s, "refused", more);
    return ms > 0 ? (double)ms / 1000 : own_delay_s(s);
}

/* Before the welcome every error that names a time is a refusal; after it the topic is asked for again. */
static int is_refusal(struct stream_loop *loop, struct stream *s, const unsigned char *error, size_t size)
{
    int is_told;
    long ms = told_ms(error, size, &is_told);
    if (ms <= 0) {
        stream_violation(loop, s, "an error that names no time");
        return 0;
    }
    if (lives[s->index].is_welcome) {
        lives[s->index].ask_at = stream_now_s() + (double)ms / 1000;
        return 0;
    }
    return 1;
}

static void welcome(struct stream_loop *loop, struct stream *s)
{
    (void)loop;
    lives[s->index].is_welcome = 1;
    note(s, "welcome", "");
}

static void became_live(struct stream_loop *loop, struct stream *s)
{
    struct life *life = &lives[s->index];
    life->delay_s = FIRST_DELAY_S;
    if (life->applied < 0) life->applied = s->topic[0].last_seq;
    else if (s->topic[0].last_seq != life->applied) stream_violation(loop, s, "resumed at another seq");
    note(s, "live", "");
}

static void took(struct stream_loop *loop, struct stream *s, int topic, int64_t seq, const unsigned char *payload,
    size_t payload_bytes, int64_t now_ns)
{
    struct life *life = &lives[s->index];
    (void)topic, (void)payload, (void)payload_bytes;
    last_frame_at = stream_now_s();
    if (seq <= life->applied) {
        repeats++;
        return;
    }
    if (seq != life->applied + 1) {
        gaps++;
        return;
    }
    life->applied = seq;
    struct {
        uint32_t connection, crc;
        int64_t seq, received_ns;
    } line = {(uint32_t)s->index, crc32_of(loop->entry, loop->entry_bytes), seq, now_ns};
    fwrite(&line, sizeof line, 1, frames_file);
}

static void ended(struct stream_loop *loop, struct stream *s)
{
    char more[48];
    snprintf(more, sizeof more, ", \"close_code\": %d", s->close_code);
    note(s, "failed", more);
    if (lives[s->index].is_welcome) {
        /* Its token is spent, and it has no further one. */
        stream_violation(loop, s, "ended after the welcome");
        return;
    }
    loop->ended--;
    forget_connection(s);
    s->retry_at = stream_now_s() + own_delay_s(s);
}

static void ask_again(struct stream_loop *loop)
{
    double now = stream_now_s();
    for (int i = 0; i < loop->count; i++) {
        struct stream *s = &loop->all[i];
        if (!lives[i].ask_at || lives[i].ask_at > now || s->state != STREAM_SUBSCRIBING) continue;
        unsigned char subscribe[SUBSCRIBE_MAX];
        size_t size = put_subscribe(subscribe, s);
        lives[i].ask_at = 0;
        if (send(s->fd, subscribe, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
            stream_violation(loop, s, "cannot ask again");
    }
}

static void step(struct stream_loop *loop)
{
    stream_step(loop, 10);
    ask_again(loop);
}

static int is_all_live(struct stream_loop *loop, double deadline)
{
    while (loop->live < loop->count && !loop->violations && stream_now_s() < deadline) step(loop);
    return loop->live == loop->count;
}

static int connect_plain(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("knock");
        exit(3);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* Wait for the answer to an upgrade, and leave. Returns 1: refused by HTTP, 2: after the upgrade, 0: anything else. */
static int take_refusal(int fd)
{
    unsigned char answer[ANSWER_MAX];
    size_t size = 0;
    int found = 0;
    for (ssize_t got; size < sizeof answer && (got = recv(fd, answer + size, sizeof answer - size, 0)) > 0;) {
        size += (size_t)got;
        if (size >= 12 && !memcmp(answer, "HTTP/1.1 429", 12)) found = 1;
        else if (memmem(answer, size, "rate_limited", 12)) found = 2;
        if (found) break;
    }
    close(fd);
    return found;
}

/* Some knocks together; their answers are added to `found`. */
static void knock(const struct stream_loop *loop, int count, int *found)
{
    int fds[KNOCKS_TOGETHER];
    for (int i = 0; i < count; i++) {
        fds[i] = connect_plain(loop->port);
        send(fds[i], loop->all[0].preamble, loop->all[0].upgrade_bytes, MSG_NOSIGNAL);
    }
    for (int i = 0; i < count; i++) found[take_refusal(fds[i])]++;
}

int main(int argc, char **argv)
{
    if (argc < 7) return 2;
    struct stream_loop loop = {.port = atoi(argv[1]), .opening_max = 32, .keep_ended = 1, .on_frame = took,
        .on_live = became_live, .on_ended = ended, .on_welcome = welcome, .retry_in = retry_in, .is_refusal = is_refusal};
    lineage = argv[4];
    frames_file = fopen(argv[5], "wb");
    happenings = fopen(argv[6], "w");
    for (int i = 7; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--opens-per-s")) loop.opens_per_s = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--opening")) loop.opening_max = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--seed")) random_state = (uint64_t)atoll(argv[i + 1]) * 2654435769u + 1;
        else return 2;
    }
    if (!frames_file || !happenings || stream_load(&loop, argv[2]) || stream_load(&again, argv[3])) return 2;
    lives = calloc((size_t)loop.count + 1, sizeof *lives);
    if (!lives || again.count != loop.count) return 2;
    for (int i = 0; i < loop.count; i++) lives[i] = (struct life){.applied = -1, .delay_s = FIRST_DELAY_S};
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
    int is_open = 0;
    char line[256];
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        for (struct pollfd input = {.fd = 0, .events = POLLIN}; poll(&input, 1, is_open ? 0 : 50) <= 0;)
            if (is_open) step(&loop);
        if (!fgets(line, sizeof line, stdin) || !strncmp(line, "quit", 4)) break;
        int done = 1, first = 0, count = 0, found[3] = {0};
        double began = stream_now_s(), cpu_s = stream_cpu_s(), seconds = 0, quiet_s = 0;
        if (sscanf(line, "open %lf", &seconds) == 1) {
            is_open = 1;
            done = is_all_live(&loop, began + seconds);
        } else if (sscanf(line, "cut %d %d %lf", &first, &count, &seconds) == 3) {
            /* Nothing holds anybody back but what the node says. */
            loop.opens_per_s = loop.opening_max = 0;
            for (int i = first; i < first + count && i < loop.count; i++) cut(&loop, &loop.all[i]);
            done = is_all_live(&loop, began + seconds);
        } else if (sscanf(line, "wait %lf", &seconds) == 1) {
            while (stream_now_s() < began + seconds) step(&loop);
        } else if (sscanf(line, "settle %lf %lf", &quiet_s, &seconds) == 2) {
            last_frame_at = began;
            while (stream_now_s() < last_frame_at + quiet_s && stream_now_s() < began + seconds) step(&loop);
            done = stream_now_s() < began + seconds;
        } else if (sscanf(line, "knock %d %d", &first, &count) == 2) {
            int *silent = calloc((size_t)count + 1, sizeof *silent);
            for (int i = 0; i < count; i++) silent[i] = connect_plain(loop.port);
            /* So that they have their places before the first knock comes. */
            if (count) usleep(200000);
            for (int i = 0; i < first; i += KNOCKS_TOGETHER)
                knock(&loop, first - i < KNOCKS_TOGETHER ? first - i : KNOCKS_TOGETHER, found);
            for (int i = 0; i < count; i++) close(silent[i]);
            free(silent);
            done = !found[0];
        }
        fflush(frames_file);
        fflush(happenings);
        printf("{\"done\": %s, \"live\": %d, \"repeats\": %lld, \"gaps\": %lld, \"violations\": %lld, \"refused\": %lld, "
               "\"told\": %d, \"bare\": %d, \"others\": %d, \"seconds\": %.6f, \"cpu_s\": %.6f, \"reason\": \"",
            done ? "true" : "false", loop.live, (long long)repeats, (long long)gaps, (long long)loop.violations,
            (long long)loop.refused, found[2], found[1], found[0], stream_now_s() - began, stream_cpu_s() - cpu_s);
        stream_print_text(stdout, loop.reason);
        printf("\"}\n");
        fflush(stdout);
    }
    fclose(frames_file);
    fclose(happenings);
    stream_close(&loop);
    return 0;
}
