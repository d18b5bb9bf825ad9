/* Subscribers whose every frame is verified and logged, some of whom read slowly or not at all; driven by
 * lines on standard input, one JSON line to each. See stream.h and chaos/load/delivery_client.py.
 *
 *   delivery_client PORT PREAMBLES [--receive-buffer BYTES] [--log FILE] [--look-every-us N]
 *
 *   open S                     connect everybody; answers when all are live, one ended, or S seconds are over
 *   stall FIRST N              stop reading from connections FIRST..FIRST+N-1
 *   pace FIRST N BYTES_PER_S   read so much of each, and no faster
 *   resume                     read from all again, as fast as it comes
 *   wait S                     read for S seconds
 *   until TOPIC SEQ S          read until every connection that lives has TOPIC up to SEQ, or S seconds are over
 *   report                     answers with each connection: last seq of each topic, close code, frames
 *   quit                       also: end of input
 *
 * Payloads are those of known_payloads.py as the text of an `output` event: 0x12, its length, the text.
 * A connection may end, if the node ends it: the report says how. Everything else that is wrong is counted.
 * With --look-every-us it sleeps that long between two looks instead of being woken by the kernel for each
 * frame: on loopback the sender pays for waking whoever waits. */
#include "stream.h"
#include <poll.h>

struct pace {
    double bytes_per_s, room; /* bytes that may be read now; below 0 it waits */
    int64_t seen;
};

static double paced_at;
static int look_every_us;

static void took(struct stream_loop *loop, struct stream *s, int topic, int64_t seq, const unsigned char *payload,
    size_t payload_bytes, int64_t now_ns)
{
    uint64_t length = 0;
    const unsigned char *end = payload + payload_bytes;
    const unsigned char *text = payload_bytes > 1 && *payload == 0x12 ? stream_varint(payload + 1, end, &length) : NULL;
    (void)topic, (void)now_ns;
    if (!text || text + length != end || !stream_is_payload(loop, seq, text, (size_t)length))
        stream_violation(loop, s, "another payload than was written");
}

static void keep_pace(struct stream_loop *loop)
{
    double now = stream_now_s(), passed = now - paced_at;
    if (passed < 0.005) return;
    paced_at = now;
    for (int i = 0; i < loop->count; i++) {
        struct stream *s = &loop->all[i];
        struct pace *pace = s->user;
        if (!pace || pace->bytes_per_s <= 0 || s->state != STREAM_LIVE) continue;
        pace->room += pace->bytes_per_s * passed - (double)(s->bytes - pace->seen);
        if (pace->room > pace->bytes_per_s / 10) pace->room = pace->bytes_per_s / 10;
        pace->seen = s->bytes;
        if (pace->room > 0) stream_resume(loop, s);
        else stream_pause(loop, s);
    }
}

static void step(struct stream_loop *loop, int timeout_ms)
{
    if (look_every_us) {
        usleep((useconds_t)look_every_us);
        while (stream_step(loop, 0) == STREAM_EVENTS) continue;
    } else
        stream_step(loop, timeout_ms);
    keep_pace(loop);
}

static int has_input(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static void report(struct stream_loop *loop)
{
    printf("{\"connections\": [");
    for (int i = 0; i < loop->count; i++) {
        struct stream *s = &loop->all[i];
        printf("%s{\"is_ended\": %s, \"close_code\": %d, \"frames\": %lld, \"last_seqs\": [", i ? ", " : "",
            s->state == STREAM_ENDED ? "true" : "false", s->close_code, (long long)s->frames);
        for (int t = 0; t < s->topics; t++) printf("%s%lld", t ? ", " : "", (long long)s->topic[t].last_seq);
        printf("]}");
    }
    printf("]}\n");
    fflush(stdout);
}

static void answer(struct stream_loop *loop, int done)
{
    if (loop->log) fflush(loop->log);
    printf("{\"done\": %s, \"live\": %d, \"ended\": %d, \"violations\": %lld, \"frames\": %lld, \"cpu_s\": %.6f, "
           "\"reason\": \"",
        done ? "true" : "false", loop->live, loop->ended, (long long)loop->violations, (long long)loop->frames,
        stream_cpu_s());
    stream_print_text(stdout, loop->reason);
    printf("\"}\n");
    fflush(stdout);
}

static int has_all(struct stream_loop *loop, int topic, int64_t seq)
{
    for (int i = 0; i < loop->count; i++) {
        struct stream *s = &loop->all[i];
        if (s->state == STREAM_LIVE && topic < s->topics && s->topic[topic].last_seq < seq) return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    struct stream_loop loop = {.port = atoi(argv[1]), .opening_max = 16, .opens_per_s = 200, .keep_ended = 1,
        .on_frame = took};
    for (int i = 3; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--receive-buffer")) loop.receive_buffer = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--log")) loop.log = fopen(argv[i + 1], "wb");
        else if (!strcmp(argv[i], "--look-every-us")) look_every_us = atoi(argv[i + 1]);
        else return 2;
    }
    if (stream_load(&loop, argv[2])) return 2;
    /* Whoever is measured, or feeds it, is not to wait for a look. */
    if (look_every_us && nice(19) < 0) perror("nice");
    struct pace *paces = calloc((size_t)loop.count + 1, sizeof *paces);
    if (!paces) return 2;
    for (int i = 0; i < loop.count; i++) loop.all[i].user = &paces[i];
    int is_open = 0;
    char line[256];
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        while (!has_input()) {
            if (is_open) step(&loop, 10);
            else usleep(1000);
        }
        if (!fgets(line, sizeof line, stdin) || !strncmp(line, "quit", 4)) break;
        int done = 1, first = 0, count = 0;
        double number = 0, now = stream_now_s();
        long long seq = 0;
        if (sscanf(line, "open %lf", &number) == 1) {
            is_open = 1;
            while (loop.live < loop.count && !loop.ended && stream_now_s() < now + number) step(&loop, 10);
            done = loop.live == loop.count;
        } else if (sscanf(line, "stall %d %d", &first, &count) == 2) {
            for (int i = first; i < first + count && i < loop.count; i++) stream_pause(&loop, &loop.all[i]);
        } else if (sscanf(line, "pace %d %d %lf", &first, &count, &number) == 3) {
            paced_at = now;
            for (int i = first; i < first + count && i < loop.count; i++)
                paces[i] = (struct pace){.bytes_per_s = number, .seen = loop.all[i].bytes};
        } else if (!strncmp(line, "resume", 6)) {
            for (int i = 0; i < loop.count; i++) {
                paces[i].bytes_per_s = 0;
                stream_resume(&loop, &loop.all[i]);
            }
        } else if (sscanf(line, "wait %lf", &number) == 1) {
            while (stream_now_s() < now + number) step(&loop, 10);
        } else if (sscanf(line, "until %d %lld %lf", &first, &seq, &number) == 3) {
            while (!(done = has_all(&loop, first, seq)) && stream_now_s() < now + number) step(&loop, 10);
        } else if (!strncmp(line, "report", 6)) {
            report(&loop);
            continue;
        }
        answer(&loop, done);
    }
    stream_close(&loop);
    return 0;
}
