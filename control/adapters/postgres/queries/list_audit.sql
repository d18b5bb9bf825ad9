-- $1 after audit_id, $2 connection_id, $3 request_id, $4 session_id, $5 user_id, $6 action, $7 from, $8 before,
-- $9 limit; NULL: any. Planned anew for each call, so that what is NULL is no condition.
SELECT
    audit_id, occurred_at, action, outcome, reason, request_id, principal_kind, principal_id, user_id, session_id,
    device_id, key_id, org_id, jti, connection_id, node_id, detail
FROM control.audit_log
WHERE audit_id > $1
    -- Ids follow time but for the length of a statement: a window of time is a range of ids, a minute wider at both
    -- ends, and nothing outside it is read.
    AND ($7::timestamptz IS NULL OR audit_id >= coalesce((
        SELECT f.audit_id FROM control.audit_log AS f
        WHERE f.occurred_at >= $7 - interval '1 minute' ORDER BY f.occurred_at LIMIT 1
    ), 9223372036854775807))
    AND ($8::timestamptz IS NULL OR audit_id <= coalesce((
        SELECT l.audit_id FROM control.audit_log AS l
        WHERE l.occurred_at < $8 + interval '1 minute' ORDER BY l.occurred_at DESC LIMIT 1
    ), 0))
    AND ($2::text IS NULL OR connection_id = $2)
    AND ($3::text IS NULL OR request_id = $3)
    AND ($4::text IS NULL OR session_id = $4)
    AND ($5::text IS NULL OR user_id = $5)
    AND ($6::text IS NULL OR action = $6)
    AND ($7::timestamptz IS NULL OR occurred_at >= $7)
    AND ($8::timestamptz IS NULL OR occurred_at < $8)
ORDER BY audit_id
LIMIT $9
