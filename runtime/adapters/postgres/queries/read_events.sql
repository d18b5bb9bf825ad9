-- $1 topic, $2 position after which the page starts, $3 most events, $4 most payload bytes (the first
-- event counts as fitting). One statement, so head, floor and events belong together.
WITH counted AS (
    SELECT e.*, sum(octet_length(e.payload)) OVER (ORDER BY e.seq) AS bytes_through
    FROM (
        SELECT e.event_id, e.seq, e.kind, e.payload, e.schema_version, e.actor, e.request_id, e.committed_at
        FROM runtime.events AS e
        WHERE e.topic = $1 AND e.seq > $2
        ORDER BY e.seq
        LIMIT $3
    ) AS e
), page AS (
    SELECT c.* FROM counted AS c WHERE c.bytes_through <= $4 OR c.seq - 1 = $2
), columns AS (
    SELECT array_agg(p.event_id ORDER BY p.seq) AS event_ids,
           array_agg(p.kind ORDER BY p.seq) AS kinds,
           array_agg(p.payload ORDER BY p.seq) AS payloads,
           array_agg(p.schema_version ORDER BY p.seq) AS schema_versions,
           array_agg(p.actor ORDER BY p.seq) AS actors,
           array_agg(p.request_id ORDER BY p.seq) AS request_ids,
           array_agg(p.committed_at ORDER BY p.seq) AS committed_ats,
           max(p.seq) AS last_seq
    FROM page AS p
)
SELECT h.topic, h.topic_class, h.head_seq, h.head_chain, h.head_bytes_total, h.floor_seq, h.floor_chain,
       h.floor_bytes_total, h.floor_reason, h.owner_user_id, h.org_id,
       (SELECT l.id FROM runtime.lineage AS l WHERE l.is_current) AS lineage,
       c.event_ids, c.kinds, c.payloads, c.schema_versions, c.actors, c.request_ids, c.committed_ats,
       (SELECT j.chain FROM runtime.journal AS j WHERE j.topic = $1 AND j.seq = $2) AS chain_before,
       (SELECT j.chain FROM runtime.journal AS j WHERE j.topic = $1 AND j.seq = c.last_seq) AS last_chain
FROM runtime.topic_heads AS h CROSS JOIN columns AS c
WHERE h.topic = $1
