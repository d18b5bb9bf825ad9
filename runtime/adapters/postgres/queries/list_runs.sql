-- $1 user, $2 orgs, $3 run id after which the page starts (NULL: newest), $4 limit. Run ids ascend with time.
-- One bounded index scan for the owner and one for each org, then the newest of both.
WITH found AS (
    (
        SELECT r.run_id FROM runtime.runs AS r
        WHERE r.owner_user_id = $1 AND ($3::text IS NULL OR r.run_id < $3)
        ORDER BY r.run_id DESC
        LIMIT $4
    )
    UNION
    SELECT o.run_id
    FROM unnest($2::text[]) AS wanted (org_id)
    CROSS JOIN LATERAL (
        SELECT r.run_id FROM runtime.runs AS r
        WHERE r.org_id = wanted.org_id AND ($3::text IS NULL OR r.run_id < $3)
        ORDER BY r.run_id DESC
        LIMIT $4
    ) AS o
)
SELECT r.run_id, r.owner_user_id, r.org_id, r.name, r.agent, r.source, r.attributes, r.state,
       r.created_at, r.finished_at, h.head_seq, h.head_chain,
       (SELECT l.id FROM runtime.lineage AS l WHERE l.is_current) AS lineage
FROM found AS f
JOIN runtime.runs AS r ON r.run_id = f.run_id
JOIN runtime.topic_heads AS h ON h.topic = 'run:' || r.run_id || ':events'
ORDER BY r.run_id DESC
LIMIT $4
