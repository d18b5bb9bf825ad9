-- $1 projector, $2 topic after which the page starts, $3 limit. Every source, with its checkpoint and
-- its row of the read model; one snapshot.
SELECT h.topic, h.owner_user_id AS source_owner_user_id, h.org_id AS source_org_id, h.head_seq,
       coalesce(c.applied_seq, 0) AS checkpoint_seq,
       s.run_id, s.owner_user_id, s.org_id, s.name, s.title, s.state, s.event_count, s.step_count,
       s.started_at, s.last_event_at, s.finished_at, s.applied_seq
FROM runtime.topic_heads AS h
LEFT JOIN runtime.projector_checkpoints AS c ON c.projector = $1 AND c.topic = h.topic
LEFT JOIN runtime.run_summaries AS s ON s.run_id = split_part(h.topic, ':', 2)
WHERE h.topic_class = 'run_events' AND h.topic > $2
ORDER BY h.topic
LIMIT $3
