-- $1 session_id if new, $2 principal_kind, $3 user_id, $4 device_id, $5 key_id, $6 surface, $7 now,
-- $8 expires_at. A live session of the same key, user and device is extended and kept: a renewed
-- token must belong to the session of the one before it.
INSERT INTO control.sessions
    (session_id, principal_kind, user_id, device_id, key_id, surface, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (key_id, user_id, device_id) WHERE key_id IS NOT NULL AND revoked_at IS NULL
DO UPDATE SET expires_at = greatest(sessions.expires_at, excluded.expires_at)
RETURNING session_id
