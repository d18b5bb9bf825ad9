/* Many subscribers, driven by lines on standard input; answers one JSON line to each. See stream.h.
 *
 *   stream_client PORT PREAMBLES [--opens-per-s R] [--opening N] [--receive-buffer BYTES] [--no-payload]
 *                 [--log FILE] [--centrifugo SEQ] [--look-every-us N]
 *
 *   open              connect everybody; answers when all are live, or something ended
 *   run LAST_SEQ S    read until every topic of every connection that is not stalled has LAST_SEQ, something
 *                     is wrong, or S seconds are over; `seconds` is from the first frame of this command to the
 *                     last. With --look-every-us it sleeps that long between two looks instead of being woken
 *                     by the kernel: on loopback the sender pays for waking whoever waits for a frame
 *   tell FILE SEQ S   send the bytes of the file to each connection, and read until each has been told that
 *                     its replay is complete up to SEQ, or S seconds are over; `seconds` is from before the
 *                     first byte that is sent to the last of these answers
 *   stall FIRST N     stop reading from connections FIRST..FIRST+N-1
 *   resume            read from all again
 *   wait S            read for S seconds
 *   report            answers what was counted so far
 *   quit              also: end of input
 *
 * The answer: {"done", "live", "ended", "refused", "violations", "frames", "bytes", "seconds", "cpu_s",
 * "first_ns", "last_ns", "reason"}; frames, bytes, seconds, cpu_s of this command alone. */
#include "centrifugo.h"
#include <poll.h>

static int64_t first_ns, last_ns;
static int64_t wanted_seq;
static int remaining; /* topics that have not reached wanted_seq */
static int64_t wanted_replay = -1;
static int look_every_us;

static void took(struct stream_loop *loop, struct stream *s, int topic, int64_t seq, const unsigned char *payload,
    size_t payload_bytes, int64_t now_ns)
{
    (void)loop, (void)s, (void)topic, (void)payload, (void)payload_bytes;
    if (!first_ns) first_ns = now_ns;
    last_ns = now_ns;
    if (seq == wanted_seq && wanted_replay < 0) remaining--;
}

static void replayed(struct stream_loop *loop, struct stream *s, int topic, int64_t through_seq)
{
    (void)loop, (void)s, (void)topic;
    last_ns = stream_wall_ns();
    if (through_seq == wanted_replay) remaining--;
}

/* Returns 0, or -1 if the file cannot be read or a connection takes no more. */
static int tell_all(struct stream_loop *loop, const char *name)
{
    static unsigned char message[64 * 1024];
    FILE *file = fopen(name, "rb");
    if (!file) return -1;
    size_t size = fread(message, 1, sizeof message, file);
    fclose(file);
    first_ns = stream_wall_ns();
    for (int i = 0; i < loop->count; i++)
        if (send(loop->all[i].fd, message, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size) return -1;
    return 0;
}

static int count_remaining(struct stream_loop *loop)
{
    int count = 0;
    for (int i = 0; i < loop->count; i++)
        for (int t = 0; !loop->all[i].is_paused && t < loop->all[i].topics; t++)
            count += loop->all[i].topic[t].last_seq < wanted_seq;
    return count;
}

static int has_input(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static void answer(struct stream_loop *loop, int done, int64_t frames, int64_t bytes, double cpu_s)
{
    printf("{\"done\": %s, \"live\": %d, \"ended\": %d, \"refused\": %lld, \"violations\": %lld, \"frames\": %lld, "
           "\"bytes\": %lld, \"seconds\": %.9f, \"cpu_s\": %.6f, \"first_ns\": %lld, \"last_ns\": %lld, \"reason\": \"",
        done ? "true" : "false", loop->live, loop->ended, (long long)loop->refused, (long long)loop->violations,
        (long long)(loop->frames - frames), (long long)(loop->bytes - bytes), (double)(last_ns - first_ns) / 1e9,
        stream_cpu_s() - cpu_s, (long long)first_ns, (long long)last_ns);
    stream_print_text(stdout, loop->reason);
    printf("\"}\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    struct stream_loop loop = {.port = atoi(argv[1]), .verify_payload = 1, .opening_max = 32, .on_frame = took,
        .on_replayed = replayed};
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "--no-payload")) loop.verify_payload = 0;
        else if (i + 1 == argc) return 2;
        else if (!strcmp(argv[i], "--opens-per-s")) loop.opens_per_s = atof(argv[++i]);
        else if (!strcmp(argv[i], "--opening")) loop.opening_max = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--receive-buffer")) loop.receive_buffer = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--centrifugo")) {
            /* A server of the peer, whose frames begin after this seq. */
            centrifugo_start_seq = atoll(argv[++i]);
            loop.take_message = centrifugo_take_message;
        } else if (!strcmp(argv[i], "--look-every-us")) look_every_us = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--log")) loop.log = fopen(argv[++i], "wb");
        else return 2;
    }
    if (stream_load(&loop, argv[2])) return 2;
    /* Others, who are being measured or feed them, are not to wait for a look. */
    if (look_every_us && nice(19) < 0) perror("nice");
    int is_open = 0;
    char line[4200], name[4096];
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        while (!has_input()) {
            if (is_open) stream_step(&loop, 50);
            else usleep(1000);
        }
        if (!fgets(line, sizeof line, stdin) || !strncmp(line, "quit", 4)) break;
        int64_t frames = loop.frames, bytes = loop.bytes;
        double cpu_s = stream_cpu_s(), seconds = 0;
        int done = 1, first = 0, count = 0;
        first_ns = last_ns = 0;
        if (!strncmp(line, "open", 4)) {
            is_open = 1;
            while (loop.live < loop.count && !loop.ended && !loop.violations && !has_input()) stream_step(&loop, 50);
            done = loop.live == loop.count;
        } else if (sscanf(line, "run %lld %lf", (long long *)&wanted_seq, &seconds) == 2) {
            wanted_replay = -1;
            double deadline = stream_now_s() + seconds;
            remaining = count_remaining(&loop);
            /* 64 steps before a look at the clock: the steps themselves are what is measured. */
            for (int step = 0; remaining > 0 && !loop.ended && !loop.violations; step++) {
                if (look_every_us) {
                    usleep((useconds_t)look_every_us);
                    while (stream_step(&loop, 0) == STREAM_EVENTS) continue;
                } else
                    stream_step(&loop, 50);
                if (step % 64 == 0 && stream_now_s() > deadline) break;
            }
            done = remaining <= 0;
        } else if (sscanf(line, "tell %4095s %lld %lf", name, (long long *)&wanted_replay, &seconds) == 3) {
            double deadline = stream_now_s() + seconds;
            wanted_seq = -1;
            remaining = loop.count;
            done = !tell_all(&loop, name);
            /* As for run. */
            for (int step = 0; done && remaining > 0 && !loop.ended; step++) {
                stream_step(&loop, 50);
                if (step % 64 == 0 && stream_now_s() > deadline) break;
            }
            done = done && remaining <= 0;
        } else if (sscanf(line, "stall %d %d", &first, &count) == 2) {
            for (int i = first; i < first + count && i < loop.count; i++) stream_pause(&loop, &loop.all[i]);
        } else if (!strncmp(line, "resume", 6)) {
            for (int i = 0; i < loop.count; i++) stream_resume(&loop, &loop.all[i]);
        } else if (sscanf(line, "wait %lf", &seconds) == 1) {
            double deadline = stream_now_s() + seconds;
            while (stream_now_s() < deadline) stream_step(&loop, 50);
        }
        answer(&loop, done, frames, bytes, cpu_s);
    }
    stream_close(&loop);
    return 0;
}
