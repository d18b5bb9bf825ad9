SELECT r.run_id, r.owner_user_id, r.org_id, r.name, r.agent, r.source, r.attributes, r.state,
       r.created_at, r.finished_at, h.head_seq, h.head_chain,
       (SELECT l.id FROM runtime.lineage AS l WHERE l.is_current) AS lineage
FROM runtime.runs AS r
JOIN runtime.topic_heads AS h ON h.topic = 'run:' || r.run_id || ':events'
WHERE r.run_id = $1
