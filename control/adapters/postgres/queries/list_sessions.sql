-- $1 user_id, $2 device_id or NULL, $3 limit. Newest first.
SELECT session_id, user_id, device_id, surface, created_at, expires_at, revoked_at, revoked_reason, revoked_by
FROM control.sessions
WHERE user_id = $1 AND principal_kind = 'person' AND ($2::text IS NULL OR device_id = $2)
ORDER BY created_at DESC, session_id DESC
LIMIT $3
