-- The position check: every live topic of a node at once.
SELECT asked.ordinality,
       l.id AS lineage,
       h.topic IS NOT NULL AS is_known,
       h.head_seq, h.head_chain, h.head_bytes_total,
       h.floor_seq, h.floor_chain, h.floor_bytes_total, h.floor_reason,
       h.owner_user_id, h.org_id
FROM unnest($1::text[]) WITH ORDINALITY AS asked (topic, ordinality)
CROSS JOIN (SELECT id FROM runtime.lineage WHERE is_current) AS l
LEFT JOIN runtime.topic_heads AS h ON h.topic = asked.topic
ORDER BY asked.ordinality
