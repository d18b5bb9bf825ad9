-- $1 topic, $2 position after which the page starts, $3 most frames, $4 most encoded bytes (the first
-- frame counts as fitting). One statement, so the observation and the frames belong together. Rows below
-- the floor are invisible by rule, also while they have not been deleted yet.
WITH head AS (
    SELECT h.* FROM runtime.topic_heads AS h WHERE h.topic = $1
), counted AS (
    SELECT j.seq, j.entry, j.chain, sum(octet_length(j.entry)) OVER (ORDER BY j.seq) AS bytes_through
    FROM (
        SELECT r.seq, r.entry, r.chain
        FROM runtime.journal AS r, head
        WHERE r.topic = $1 AND r.seq > $2 AND r.seq >= head.floor_seq
        ORDER BY r.seq
        LIMIT $3
    ) AS j
), page AS (
    SELECT count(*) AS frames,
           max(c.seq) AS last_seq,
           string_agg(c.entry, ''::bytea ORDER BY c.seq) AS entries
    FROM counted AS c
    WHERE c.bytes_through <= $4 OR c.seq - 1 = $2
)
SELECT h.topic, h.topic_class, h.head_seq, h.head_chain, h.head_bytes_total, h.floor_seq, h.floor_chain,
       h.floor_bytes_total, h.floor_reason, h.owner_user_id, h.org_id,
       (SELECT l.id FROM runtime.lineage AS l WHERE l.is_current) AS lineage,
       p.frames, p.last_seq, p.entries,
       (SELECT j.chain FROM runtime.journal AS j WHERE j.topic = $1 AND j.seq = $2) AS chain_before,
       (SELECT c.chain FROM counted AS c WHERE c.seq = p.last_seq) AS last_chain
FROM head AS h CROSS JOIN page AS p
