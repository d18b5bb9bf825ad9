-- Retained frames after $2 that follow without a hole, at most $3 frames and about $4 bytes, with the
-- observation of the same snapshot. The page starts at $2 + 1 or is empty: rows below the floor are
-- invisible by rule even while they have not been deleted yet. Aggregates, so that nothing is done
-- per frame outside the database; sizes as joined int4, which cost the reader less than an array.
-- LIMIT 1 and the scalar subqueries spare a copy of the page and a join per row: the planner does not know
-- that there is one lineage, one head and one start.
WITH head AS MATERIALIZED (
    SELECT l.id AS lineage, h.*
    FROM (SELECT id FROM runtime.lineage WHERE is_current LIMIT 1) AS l
    LEFT JOIN runtime.topic_heads AS h ON h.topic = $1::text
),
start AS MATERIALIZED (
    SELECT j.bytes_total - octet_length(j.entry) AS bytes_before
    FROM runtime.journal AS j, head
    WHERE j.topic = $1::text AND j.seq = $2::bigint + 1 AND j.seq >= head.floor_seq
),
page AS (
    SELECT count(*) AS frames,
           max(j.seq) AS last_seq,
           string_agg(j.entry, ''::bytea ORDER BY j.seq) AS blob,
           string_agg(int4send(octet_length(j.entry)), ''::bytea ORDER BY j.seq) AS sizes
    FROM runtime.journal AS j
    WHERE j.topic = $1::text
      AND j.seq > $2::bigint AND j.seq <= $2::bigint + $3::bigint
      AND (SELECT bytes_before FROM start) IS NOT NULL
      AND (j.bytes_total <= (SELECT bytes_before FROM start) + $4::bigint OR j.seq = $2::bigint + 1)
)
SELECT head.lineage,
       head.topic IS NOT NULL AS is_known,
       head.head_seq, head.head_chain, head.head_bytes_total,
       head.floor_seq, head.floor_chain, head.floor_bytes_total, head.floor_reason,
       head.owner_user_id, head.org_id,
       page.frames, page.last_seq, page.blob, page.sizes,
       last.chain AS last_chain
FROM head
CROSS JOIN page
LEFT JOIN runtime.journal AS last ON last.topic = $1::text AND last.seq = page.last_seq
