-- $1 removed if expired before, $2 batch. Refresh tokens go with their session.
DELETE FROM control.sessions WHERE session_id IN (
    SELECT session_id FROM control.sessions WHERE expires_at < $1
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
