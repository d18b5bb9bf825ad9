-- $1 session_id, $2 now, $3 reason.
UPDATE control.sessions SET revoked_at = $2, revoked_reason = $3
WHERE session_id = $1 AND revoked_at IS NULL
RETURNING session_id
