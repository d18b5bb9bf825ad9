-- $1 topics, $2 position of each after which its page starts, $3 last position of each (NULL: no end),
-- $4 most events of a topic, $5 most payload bytes of a topic (its first event counts as fitting),
-- $6 kinds whose payload is wanted. Topics without an event are absent; a page has no hole.
SELECT t.ordinal,
       array_agg(e.seq ORDER BY e.seq) AS seqs,
       array_agg(e.kind ORDER BY e.seq) AS kinds,
       array_agg(e.payload ORDER BY e.seq) AS payloads,
       array_agg(e.committed_at ORDER BY e.seq) AS committed_ats
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS t (topic, after_seq, last_seq, ordinal)
CROSS JOIN LATERAL (
    SELECT p.seq, p.kind, p.payload, p.committed_at,
           sum(octet_length(p.payload)) OVER (ORDER BY p.seq) AS bytes_through
    FROM (
        SELECT r.seq, r.kind, r.committed_at,
               CASE WHEN r.kind = ANY ($6::text[]) THEN r.payload ELSE ''::bytea END AS payload
        FROM runtime.events AS r
        WHERE r.topic = t.topic AND r.seq > t.after_seq AND (t.last_seq IS NULL OR r.seq <= t.last_seq)
        ORDER BY r.seq
        LIMIT $4
    ) AS p
) AS e
WHERE e.bytes_through <= $5 OR e.seq = t.after_seq + 1
GROUP BY t.ordinal
