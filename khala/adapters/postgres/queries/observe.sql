-- One statement, one snapshot: the current lineage, each topic's head row, and the journal row at
-- the asked seq. Equal snapshots give equal answers on every node.
SELECT asked.ordinality,
       l.id AS lineage,
       h.topic IS NOT NULL AS is_known,
       h.head_seq, h.head_chain, h.head_bytes_total,
       h.floor_seq, h.floor_chain, h.floor_bytes_total, h.floor_reason,
       h.owner_user_id, h.org_id,
       j.chain AS cursor_chain, j.bytes_total AS cursor_bytes_total
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (topic, seq, ordinality)
CROSS JOIN (SELECT id FROM runtime.lineage WHERE is_current) AS l
LEFT JOIN runtime.topic_heads AS h ON h.topic = asked.topic
LEFT JOIN runtime.journal AS j ON j.topic = asked.topic AND j.seq = asked.seq
ORDER BY asked.ordinality
