/* What a subscriber of Centrifugo gets (its client protocol 2, protobuf over WebSocket), in terms of stream.h.
 *
 * A WebSocket message is replies, each with its length before it. Of a reply: error 2, push 4, subscribe 6;
 * of a push: publication 4, unsubscribe 7, disconnect 12; of a publication: data 4, which is a payload of
 * known_payloads.py, so that the seq is read from it. An empty reply is a ping and wants an empty command. */
#ifndef KHALA_CENTRIFUGO_H
#define KHALA_CENTRIFUGO_H
#include "stream.h"

/* The seq after which publications begin; a subscribe is not told one. */
static int64_t centrifugo_start_seq;

static int64_t centrifugo_seq(const unsigned char *data, uint64_t size)
{
    int64_t seq = 0;
    if (size < 16) return -1;
    for (int i = 0; i < 16; i++) {
        unsigned char c = data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return -1;
        seq = seq << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return seq;
}

static void centrifugo_publication(
    struct stream_loop *loop, struct stream *s, const unsigned char *p, const unsigned char *end, int64_t now_ns)
{
    int field;
    const unsigned char *data;
    uint64_t size;
    while (p && p < end) {
        if (!(p = stream_field(p, end, &field, &data, &size))) break;
        if (field == 4 && data) {
            stream_check_frame(loop, s, 0, centrifugo_seq(data, size), data, (size_t)size, now_ns);
            return;
        }
    }
    stream_violation(loop, s, "a publication that cannot be read");
}

static void centrifugo_push(
    struct stream_loop *loop, struct stream *s, const unsigned char *p, const unsigned char *end, int64_t now_ns)
{
    int field;
    const unsigned char *data;
    uint64_t size;
    while (p && p < end) {
        if (!(p = stream_field(p, end, &field, &data, &size))) {
            stream_violation(loop, s, "a push that cannot be read");
            return;
        }
        if (field == 4 && data) centrifugo_publication(loop, s, data, data + size, now_ns);
        if (field == 7 || field == 12) stream_violation(loop, s, "unsubscribed");
    }
}

static void centrifugo_reply(
    struct stream_loop *loop, struct stream *s, const unsigned char *p, const unsigned char *end, int64_t now_ns)
{
    /* An empty command, masked with zeros. */
    static const unsigned char pong[] = {0x82, 0x81, 0, 0, 0, 0, 0};
    int field;
    const unsigned char *data;
    uint64_t size;
    if (p == end) {
        loop->heartbeats++;
        if (send(s->fd, pong, sizeof pong, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) stream_end(loop, s, strerror(errno));
        return;
    }
    while (p && p < end) {
        if (!(p = stream_field(p, end, &field, &data, &size))) {
            stream_violation(loop, s, "a reply that cannot be read");
            return;
        }
        if (field == 2) stream_violation(loop, s, "an error");
        if (field == 4 && data) centrifugo_push(loop, s, data, data + size, now_ns);
        if (field == 6 && data && s->state == STREAM_SUBSCRIBING) {
            s->topic[0].last_seq = centrifugo_start_seq;
            s->topic[0].is_subscribed = 1;
            s->subscribed = 1;
            stream_become_live(loop, s);
        }
    }
}

static void centrifugo_take_message(
    struct stream_loop *loop, struct stream *s, const unsigned char *p, const unsigned char *end, int64_t now_ns)
{
    loop->messages++;
    while (p && p < end) {
        uint64_t size;
        p = stream_varint(p, end, &size);
        if (!p || size > (uint64_t)(end - p)) {
            stream_violation(loop, s, "a message that cannot be read");
            return;
        }
        centrifugo_reply(loop, s, p, p + size, now_ns);
        if (s->state == STREAM_ENDED) return;
        p += size;
    }
}
#endif
