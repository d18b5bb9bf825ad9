-- $1 presented hash, $2 successor hash, $3 now, $4 expiry of the successor, $5 sealed successor or NULL.
WITH spent AS (
    UPDATE control.refresh_tokens SET used_at = $3, successor_hash = $2, sealed_successor = $5
    WHERE token_hash = $1 AND used_at IS NULL
    RETURNING session_id
)
INSERT INTO control.refresh_tokens (token_hash, session_id, issued_at, expires_at)
SELECT $2, session_id, $3, $4 FROM spent
