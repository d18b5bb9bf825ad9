SELECT h.topic, h.topic_class, h.head_seq, h.head_chain, h.head_bytes_total, h.floor_seq, h.floor_chain,
       h.floor_bytes_total, h.floor_reason, h.owner_user_id, h.org_id,
       (SELECT l.id FROM runtime.lineage AS l WHERE l.is_current) AS lineage
FROM runtime.topic_heads AS h
WHERE h.topic = ANY ($1::text[])
