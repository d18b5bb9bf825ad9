-- $1 projector, $2 topic after which the search goes on, $3 limit. Sources with events that are not
-- applied, or with a summary that is not published.
SELECT h.topic, h.head_seq, coalesce(c.applied_seq, 0) AS applied_seq
FROM runtime.topic_heads AS h
LEFT JOIN runtime.projector_checkpoints AS c ON c.projector = $1 AND c.topic = h.topic
WHERE h.topic_class = 'run_events' AND h.topic > $2
    AND (h.head_seq > coalesce(c.applied_seq, 0) OR c.applied_seq > c.published_seq)
ORDER BY h.topic
LIMIT $3
