-- $1 user_id, $2 limit. Newest first.
SELECT session_id, user_id, device_id, surface, created_at, expires_at, revoked_at
FROM control.sessions
WHERE user_id = $1 AND principal_kind = 'person'
ORDER BY created_at DESC, session_id DESC
LIMIT $2
