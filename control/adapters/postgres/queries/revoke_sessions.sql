-- $1 user_id, $2 principal_kind, $3 session_id or NULL, $4 device_id or NULL, $5 session to spare or NULL,
-- $6 now, $7 reason, $8 revoked_by or NULL. Locked in the order of their ids: two that revoke at once wait for
-- each other in one direction only.
WITH chosen AS (
    SELECT session_id FROM control.sessions
    WHERE user_id = $1 AND principal_kind = $2 AND revoked_at IS NULL
        AND ($3::text IS NULL OR session_id = $3)
        AND ($4::text IS NULL OR device_id = $4)
        AND session_id IS DISTINCT FROM $5
    ORDER BY session_id
    FOR UPDATE
)
UPDATE control.sessions AS s SET revoked_at = $6, revoked_reason = $7, revoked_by = $8
FROM chosen
WHERE s.session_id = chosen.session_id
RETURNING s.session_id
