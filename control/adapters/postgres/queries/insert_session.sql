-- $1 session_id, $2 user_id, $3 device_id, $4 surface, $5 created_at, $6 expires_at, $7 refresh hash.
WITH new_session AS (
    INSERT INTO control.sessions
        (session_id, principal_kind, user_id, device_id, surface, created_at, expires_at)
    VALUES ($1, 'person', $2, $3, $4, $5, $6)
    RETURNING session_id, created_at, expires_at
)
INSERT INTO control.refresh_tokens (token_hash, session_id, issued_at, expires_at)
SELECT $7, session_id, created_at, expires_at FROM new_session
